"""Rendering rows: what a template sees, what it may not reach, and which rows are refused by name."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from strop.errors import TaskError
from strop.tasks import load_task

WriteTask = Callable[..., Path]


def all_examples(path: Path) -> dict[int, Any]:
    task = load_task(path)
    return {example.row: example for split in task.counts for example in task.examples(split)}


def refusal(path: Path) -> str:
    with pytest.raises(TaskError) as raised:
        load_task(path)
    message = str(raised.value)
    assert "\n" not in message
    return message


def test_a_row_becomes_an_example_with_all_its_parts(write_task: WriteTask) -> None:
    rows = [
        {"q": f"Q{i}", "a": f"yes{i}", "b": f"no{i}", "others": [f"P{i}", f"R{i}"], "who": i // 2, "extra": i}
        for i in range(10)
    ]
    path = write_task(
        rows,
        prompt="Question: {{ q }}\nAnswer:",
        answer=" {{ a }}",
        choices=[" {{ a }}", " {{ b }}"],
        score="choice",
        paraphrases="others",
        group="who",
    )
    example = all_examples(path)[4]
    assert example.prompt == "Question: Q3\nAnswer:"
    assert example.answer == " yes3"
    assert example.choices == (" yes3", " no3")
    assert example.paraphrases == ("P3", "R3")
    assert example.group == "1"
    assert example.columns["extra"] == 3


def test_a_counterfactual_is_rendered_as_the_prompt_is(write_task: WriteTask) -> None:
    assert all_examples(write_task())[3].counterfactual is None
    found = all_examples(write_task(counterfactual="<{{ key }}> + 1 =\n"))[3]
    assert (found.prompt, found.counterfactual) == ("2 + 1 =", "<1> + 1 =\n")


def test_templates_keep_white_space_and_escape_nothing(write_task: WriteTask) -> None:
    path = write_task([{"p": f"<b> & {i}"} for i in range(5)], prompt="{{ p }}\n", answer=" \n<i>\n")
    example = all_examples(path)[2]
    assert (example.prompt, example.answer) == ("<b> & 1\n", " \n<i>\n")


def test_templates_may_compute(write_task: WriteTask) -> None:
    path = write_task(prompt="{{ key|int * 3 }}{% if key > 2 %} big{% endif %}")
    assert all_examples(path)[20].prompt == "27 big"


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (
            {"prompt": "{{ question }}"},
            ("row 1", "prompt:", "'question' is undefined", "the row has prompt, answer, key"),
        ),
        ({"answer": " {{ reply }}"}, ("row 1", "answer:", "'reply' is undefined")),
        ({"group": "subject"}, ("row 1", "group: names the column 'subject'", "the row has prompt, answer, key")),
        ({"category": "kind"}, ("row 1", "category: names the column 'kind'", "the row has prompt, answer, key")),
        ({"paraphrases": "others"}, ("row 1", "paraphrases: names the column 'others'")),
        ({"paraphrases": "prompt"}, ("row 1", "column 'prompt' is not a list of prompts")),
        ({"score": "choice", "choices": ["{{ a }}", "x"]}, ("row 1", "choices:", "'a' is undefined")),
        ({"answer": "  "}, ("row 1", "the answer is empty", "drop the row")),
        ({"prompt": "{{ '' }}"}, ("row 1", "the prompt is empty", "drop the row")),
        (
            {"score": "choice", "choices": [" a", " b"]},
            ("row 1", "' 1' is not one of the choices [' a', ' b']", "spell"),
        ),
        ({"score": "choice", "choices": ["{{ answer }}", "{{ answer }}"]}, ("row 1", "two choices are the same text")),
        ({"score": "choice", "choices": ["{{ answer }}", " "]}, ("row 1", "a choice is empty")),
        (
            {"score": "first_token", "choices": [" a", " b"]},
            ("row 1", "' 1' is not one of the choices [' a', ' b']", "spell"),
        ),
        ({"counterfactual": "{{ '' }}"}, ("row 1", "the counterfactual is empty", "drop the row")),
        ({"counterfactual": "{{ other }}"}, ("row 1", "counterfactual:", "'other' is undefined")),
        ({"prompt": "{{ 1 / 0 }}"}, ("row 1", "prompt:", "failed", "division by zero")),
    ],
    ids=str,
)
def test_a_row_that_does_not_fit_is_named(write_task: WriteTask, keys: dict[str, Any], said: tuple[str, ...]) -> None:
    message = refusal(write_task(**keys))
    assert "data.jsonl" in message
    for part in said:
        assert part in message


def test_the_one_bad_row_among_good_ones_is_named(write_task: WriteTask) -> None:
    rows = [{"prompt": f"p{i}", "answer": f" a{i}"} for i in range(20)]
    rows[12]["answer"] = ""
    assert "row 13: the answer is empty" in refusal(write_task(rows))
    del rows[12]["answer"]
    assert "row 13" in refusal(write_task(rows))


def test_paraphrases_that_are_not_texts_are_refused(write_task: WriteTask) -> None:
    for wrong in ([1, 2], [""], "a text", None):
        rows = [{"prompt": f"p{i}", "answer": " a", "others": wrong} for i in range(5)]
        assert "column 'others' is not a list of prompts" in refusal(write_task(rows, paraphrases="others"))


def test_an_empty_prompt_is_welcome_where_text_is_scored_by_its_perplexity(write_task: WriteTask) -> None:
    assert all_examples(write_task(prompt="", score="perplexity"))[1].prompt == ""


@pytest.mark.parametrize("key", ["prompt", "answer", "counterfactual"])
def test_a_template_that_is_not_jinja_is_named(write_task: WriteTask, key: str) -> None:
    message = refusal(write_task(**{key: "{{ prompt "}))
    assert f"The template in {key}: of task made is not Jinja" in message


def test_a_choice_that_is_not_jinja_is_named(write_task: WriteTask) -> None:
    assert "The template in choices:" in refusal(write_task(score="choice", choices=["{% if %}", "b"]))


@pytest.mark.parametrize(
    "attack",
    [
        "{{ prompt.__class__.__mro__ }}",
        "{{ ''.__class__ }}",
        "{{ cycler.__init__.__globals__ }}",
        "{{ self.__init__.__globals__ }}",
        "{{ prompt|attr('__class__') }}",
        "{{ '{0.__class__}'.format(prompt) }}",
        "{{ others.append('x') }}",
        "{{ lipsum.__globals__['os'].system('true') }}",
        "{% include '/etc/hostname' %}",
    ],
)
def test_a_template_reaches_nothing_but_its_row(write_task: WriteTask, attack: str) -> None:
    rows = [{"prompt": "p", "answer": " a", "others": ["q"]}] * 5
    message = refusal(write_task(rows, prompt=attack))
    assert "row 1" in message
    assert "prompt:" in message
