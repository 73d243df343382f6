"""Templates end: what they may compute is bounded in steps and in size, and what prompts need is not."""

import time
from typing import Any

import pytest

from strop.errors import EndlessError, TaskError
from strop.tasks.sandbox import BoundedEnvironment, metered
from strop.tasks.templates import Condition, rendered, template_of

ROW = {
    "prompt": "p" * 300,
    "xs": list(range(20_000)),
    "big": "ab" * 500_000,
    "number": 1_234_567,
    "others": ["q", "r"],
    "d": {"k": "v"},
}
TEN, PAIR = "{% set a = 'aaaaaaaaaa' %}", "{% set a = [1, 1] %}"


def render(text: str, row: dict[str, Any] = ROW) -> str:
    template = template_of(text, BoundedEnvironment(), what="The template")
    return rendered(template, row, what="row 1: the template")


@pytest.mark.parametrize(
    "bomb",
    [
        "{{ 'a' * 10**9 }}",
        "{{ 10**9 * 'a' }}",
        "{{ [1] * 10**9 }}",
        "{{ (9**9) ** 99999 }}",
        "{{ 9**5000 }}{{ 9**5000 * 9**5000 }}",
        "{% set n = namespace(x=9) %}{% for i in range(60) %}{% set n.x = n.x * n.x %}{% endfor %}{{ n.x }}",
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        "{% for i in range(20000) %}" + "x" * 50_000 + "{% endfor %}",
        "{% macro f() %}" + "x" * 5_000 + "{% endmacro %}{% for i in range(20000) %}{{ f() }}{% endfor %}",
        "{% macro f() %}{% for i in range(20000) %}{{ caller() }}{% endfor %}{% endmacro %}"
        "{% call f() %}" + "x" * 50_000 + "{% endcall %}",
        "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
        "{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}",
        "{% block a %}{{ self.a() }}{% endblock %}",
        "{% for i in [1] recursive %}{{ loop([1]) }}{{ loop([1]) }}{% endfor %}",
        TEN + "{% set a = a + a %}" * 60 + "{{ a }}",
        TEN + "{% set a = a ~ a %}" * 60 + "{{ a }}",
        TEN + "{% set a %}{{ a }}{{ a }}{% endset %}" * 60 + "{{ a }}",
        PAIR + "{% set a = [a, a] %}" * 60 + "{{ a }}",
        PAIR + "{% set a = (a, a) %}" * 60 + "{{ {a: 1} }}",
        PAIR + "{% set a = dict(x=a, y=a) %}" * 60 + "{{ a == a }}",
        PAIR + "{% set a = namespace(x=a, y=a) %}" * 60 + "{{ a|string }}",
        "{% set n = namespace(x=1) %}{% for i in range(20000) %}{% set n.x = [n.x] %}{% endfor %}{{ n.x }}",
        "{% for i in range(20000) %}{% if -1 in xs %}x{% endif %}{% endfor %}",
        "{% for i in range(20000) %}{% if -1 is in xs %}x{% endif %}{% endfor %}",
        "{% for i in range(20000) %}{% set y = big[1:] %}{% endfor %}",
        "{% for i in range(20000) %}{{ xs|select('none')|first|default('') }}{% endfor %}",
        "{% for i in range(20000) %}{{ big.count('a') }}{% endfor %}",
        "{{ range(20000)|batch(1)|sum(start=[]) }}",
        "{{ [1]|batch(10**9, 0)|list }}",
        "{{ [1]|slice(10**9)|list }}",
        "{{ 'a'|center(10**9) }}",
        "{{ ['a']|map('center', 10**9)|list }}",
        "{% filter center(10**9) %}a{% endfilter %}",
        "{{ 'a'.ljust(1000000000) }}",
        "{{ '1'.zfill(10**9) }}",
        "{{ '\t'.expandtabs(10**9) }}",
        "{{ 'a\nb'|indent(10**9) }}",
        "{{ [1]|tojson(indent=10**9) }}",
        "{{ 1.5|round(10**9) }}",
        "{{ '%1000000000d' % 1 }}",
        "{{ '%1000000000d'|format(1) }}",
        "{{ '%*d' % (10**9, 1) }}",
        "{{ '%.999999999f'|format(1) }}",
        "{{ '{:1000000000}'.format(1) }}",
        "{{ '{:{}}'.format(1, 10**9) }}",
        "{{ ('{0}' * 9999).format('x' * 99999) }}",
        "{{ ('%(a)s' * 9999) % {'a': 'x' * 99999} }}",
        "{{ range(9999)|join('x' * 99999) }}",
        "{{ ('x' * 99999).join(others * 999) }}",
        "{{ ('a' * 99999)|replace('a', 'b' * 99999) }}",
        "{{ ('a' * 99999).replace('', 'b' * 99999) }}",
        "{{ ('a' * 99999).translate({97: 'b' * 99999}) }}",
        "{{ (5).to_bytes(10**9, 'big') }}",
        "{{ ('<!---->' * 99999)|striptags }}",
        "{{ ('a@' * 99999)|urlize }}",
        "{{ big|wordwrap(1) }}",
        "{{ xs|pprint }}",
    ],
    ids=lambda bomb: bomb[:40],
)
def test_a_bomb_is_refused_before_it_goes_off(bomb: str) -> None:
    began = time.process_time()
    with pytest.raises(EndlessError) as raised:
        render(bomb)
    assert str(raised.value) == (
        "row 1: the template computes more than a prompt needs; shorten its loops and what it repeats."
    )
    assert time.process_time() - began < 3


@pytest.mark.parametrize(
    ("bomb", "said"),
    [
        ("x" * 100_001, "The template has 100,001 characters, more than 100,000; put what is long into the rows."),
        ("{{ a }}" * 3_000, "The template has more than 8,000 parts; put what is long into the rows."),
        ("{{ 1" + " < 1" * 9_000 + " }}", "The template has more than 8,000 parts; put what is long into the rows."),
        ("{{ " + "[" * 900 + "]" * 900 + " }}", "The template is nested too deeply; write it flatter."),
        ("{% for i in a %}" * 30 + "{% endfor %}" * 30, "The template is nested too deeply; write it flatter."),
        ("{{ " + "9" * 5_000 + " }}", "The template cannot be read: Exceeds the limit (4300 digits)"),
        ("{{ prompt|random }}", "The template is not Jinja: No filter named 'random'"),
    ],
)
def test_a_template_that_is_too_much_to_compile_is_refused(bomb: str, said: str) -> None:
    with pytest.raises(TaskError) as raised:
        template_of(bomb, BoundedEnvironment(), what="The template")
    assert str(raised.value).startswith(said)
    assert len(str(raised.value)) < 200


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("{{ prompt|replace('p', 'q')|upper }}", "Q" * 300),
        (
            "{% for o in others %}{{ loop.index }}/{{ loop.length }} {{ o }}{% if not loop.last %}, {% endif %}{% endfor %}",
            "1/2 q, 2/2 r",
        ),
        ("{% for k, v in d.items() if v %}{{ k }}={{ v }}{% else %}none{% endfor %}", "k=v"),
        ("{% macro f(x, y='z') %}[{{ x }}{{ y }}]{% endmacro %}{{ f(1) }}{{ f('a', y='b') }}", "[1z][ab]"),
        ("{{ '%05.2f in 123456' % 3.14159 }} {{ '{:>6}|{x}'.format(1, x=2) }} {{ '%d%%'|format(number) }}",
         "03.14 in 123456      1|2 1234567%"),
        ("{{ (number / 7)|round(2) }} {{ number|int + 3 }} {{ 2**10 }}{{ 'ab' * 3 }}", "176366.71 1234570 1024ababab"),
        ("{{ 'ABCD'.index('C') }} {{ ['x', 'y'][1] }} {{ {'a': 'b'}[d.k]|default('z') }}", "2 y z"),
        ("{{ 'a' ~ number ~ 'b' }} {{ prompt[:3] }} {{ 'q' in others }} {{ 1 < 2 < 3 }}", "a1234567b ppp True True"),
        ("{{ d|tojson }} {{ others|first }} {{ others|map('upper')|join(', ') }} {{ others|sort(reverse=true)|join }}",
         '{"k": "v"} q Q, R rq'),
        ("{% set x %}a{{ number }}{% endset %}{{ x }}{% set n = namespace(t=0) %}"
         "{% for i in range(100) %}{% set n.t = n.t + i %}{% endfor %} {{ n.t }}", "a1234567 4950"),
        ("{{ ('word ' * 2000)|truncate(20) }}{{ 'a\nb'|indent(2) }}{{ 'x'|center(5) }}", "word word word...a\n  b  x  "),
        ("{{ big|length }} {{ big[:4] }} {{ xs|sum }}", "1000000 abab 199990000"),
    ],
)  # fmt: skip
def test_what_prompts_need_is_computed_as_jinja_does(text: str, wanted: str) -> None:
    assert render(text) == wanted


def test_the_steps_of_one_rendering_are_not_those_of_another() -> None:
    template = template_of("{% for i in range(9000) %}x{% endfor %}", BoundedEnvironment(), what="The template")
    for _ in range(5):
        assert rendered(template, {}, what="row") == "x" * 9_000
    assert metered(lambda: rendered(template, {}, what="row")) == "x" * 9_000


def holds(text: str, **row: Any) -> bool:
    return Condition.read(text, BoundedEnvironment(), what="The condition").holds(row, what="row 1: the condition")


def test_a_condition_is_true_or_false_of_a_row() -> None:
    assert holds("lang == 'en' and score|float > 0.5", lang="en", score="0.7")
    assert not holds("lang == 'en' and score|float > 0.5", lang="de", score="0.7")
    assert holds("kept", kept=True)
    assert not holds("not kept", kept=True)
    assert holds("'x' in tags", tags=["x"])
    found = Condition.read("a == b.c and d is defined", BoundedEnvironment(), what="The condition")
    assert found.names == {"a", "b", "d"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{{ lang == 'en' }}", "The condition is written without braces, such as where: lang == 'en'."),
        ("lang = 'en'", "The condition is not Jinja: it goes on behind its end."),
        ("lang ==", "The condition is not Jinja: "),
        ("lang) %}{{ x }}{% if (x", "The condition is written without braces"),
        (
            "lang",
            "row 1: the condition gives 'False', which is neither true nor false; compare it, as in where: lang ==",
        ),
        ("1", "row 1: the condition gives 1, which is neither true nor false"),
        ("lang * 10**9 == 'x'", "row 1: the condition computes more than a prompt needs"),
        ("x" + " and x" * 9_000, "The condition has more than 8,000 parts"),
    ],
)
def test_what_is_no_condition_is_refused(text: str, said: str) -> None:
    with pytest.raises(TaskError) as raised:
        holds(text, lang="False")
    assert str(raised.value).startswith(said)
