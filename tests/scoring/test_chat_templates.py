"""Templates of all kinds: what they write is what is asked, to the letter, or they are refused in one sentence."""

import datetime
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.fixtures.spelled import spelled

from strop.errors import StropWarning, TaskError
from strop.scoring import ClassScorer, Scorer, dated
from strop.scoring.chat_template import asked_of, prompt_of
from strop.scoring.encoding import encode
from strop.scoring.generation import Generator
from strop.scoring.label_batches import encode_labelled
from strop.tasks import Example, GenerateSettings, Labels, Shot
from strop.tasks.chat import Chat

ASK = Example("what is 4", "red", chat=Chat(), row=2)
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA_2 = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
    "{% else %} {{ m.content }} </s>{% endif %}{% endfor %}"
)
PARTS = (
    "{% for m in messages %}<{{ m.role }}>{% for part in m.content %}{{ part.text }}{% endfor %};{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
THINKING = (
    "{% for m in messages %}<{{ m.role }}>{% if m.role == 'assistant' %}<think></think>{% endif %}{{ m.content }}"
    "{% endfor %}{% if add_generation_prompt %}<assistant>{% if enable_thinking is defined and not enable_thinking %}"
    "<think></think>{% endif %}{% endif %}"
)


def chatting(template: Any, **made: Any) -> Any:
    tokenizer = spelled(**made)
    tokenizer.chat_template = template
    return tokenizer


def said_by(error: pytest.ExceptionInfo[TaskError]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


def test_several_templates_without_a_default_are_named_and_one_may_be_chosen() -> None:
    tokenizer = chatting({"tools": "{{ messages }}", "rag": CHATML})
    with pytest.raises(TaskError) as refused:
        prompt_of(ASK, tokenizer)
    assert said_by(refused) == (
        "The tokenizer has the chat templates tools, rag and none called default; name one in the task file, such as chat: "
        "{chat_template: tools}."
    )
    named = Example("what is 4", "red", chat=Chat(arguments=(("chat_template", "rag"),)))
    assert prompt_of(named, tokenizer) == prompt_of(ASK, chatting(CHATML))
    with pytest.raises(TaskError, match="and none called rage; name one"):
        prompt_of(Example("a", "b", chat=Chat(arguments=(("chat_template", "rage"),))), tokenizer)
    assert prompt_of(ASK, chatting({"tools": "{{ messages }}", "default": CHATML})) == prompt_of(ASK, chatting(CHATML))


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (
            "{{ messages[0].role + 1 }}",
            'fails on the messages (TypeError: can only concatenate str (not "int") to str)',
        ),
        ("{{ messages[0].content // 2 }}", "fails on the messages (TypeError: "),
        ("{{ 1 // 0 }}", "fails on the messages (ZeroDivisionError: "),
        ("{{ messages[9].content.strip() }}", "refuses the messages: "),
        ("{% for m in messages %}", "refuses the messages: "),
        (
            "{{ raise_exception('Roles must alternate') }}",
            "refuses the messages: Roles must alternate; write the template",
        ),
    ],
)
def test_a_template_that_fails_is_refused_with_its_own_words(template: str, said: str) -> None:
    with pytest.raises(TaskError) as refused:
        prompt_of(ASK, chatting(template))
    assert said_by(refused).startswith(f"The tokenizer's chat template {said}")


def test_a_template_that_reads_lists_of_parts_is_given_such() -> None:
    asked = Example("what is 4", "red", chat=Chat("Be brief."), shots=(Shot("what is 3", "blue"),))
    assert prompt_of(asked, chatting(PARTS)) == (
        "<system>Be brief.;<user>what is 3;<assistant>blue;<user>what is 4;<assistant>"
    )
    either = "{% for m in messages %}{{ m.content if m.content is string else m.content[0].text }}|{% endfor %}"
    assert prompt_of(asked, chatting(either)) == "Be brief.|what is 3|blue|what is 4|"


@pytest.mark.parametrize(
    ("template", "example", "said"),
    [
        (
            "<user><model>",
            ASK,
            "does not write the prompt's words; write the template into prompt: in the place of chat: true",
        ),
        ("<user><model>", Example("user", "x", chat=Chat()), "does not write the prompt's words; write the template"),
        (
            "{{ messages[-1].content }}",
            Example("what", "x", chat=Chat("Be brief.")),
            "does not write what the system says; leave out system:",
        ),
        (
            "{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}",
            Example("what", "x", chat=Chat(), shots=(Shot("why", "so"),)),
            "does not write the shots' answers; write the template",
        ),
        (
            "{% for m in messages %}{{ m.content | replace('is', '') }}{% endfor %}",
            ASK,
            "does not write the prompt's 'is'; write the template into prompt:",
        ),
    ],
)
def test_a_template_that_leaves_words_out_is_refused(template: str, example: Example, said: str) -> None:
    with pytest.raises(TaskError) as refused:
        prompt_of(example, chatting(template))
    assert said in said_by(refused)


@pytest.mark.parametrize("template", [LLAMA_2, LLAMA_2.replace("{{ m.content }} </s>", "{{ m.content.strip() }} </s>")])
def test_the_space_before_an_answer_is_the_templates(template: str) -> None:
    tokenizer = chatting(template, begins=True)
    own = tokenizer.apply_chat_template(
        [{"role": "user", "content": ASK.prompt}, {"role": "assistant", "content": ASK.answer}], tokenize=False
    )
    assert own == "<s>[INST] what is 4 [/INST] red </s>"
    assert prompt_of(ASK, tokenizer) + ASK.answer == own.removesuffix(" </s>")
    (found,) = encode([ASK], tokenizer, "exact", longest=128)
    assert list(found.ids) == tokenizer(own.removesuffix(" </s>"), add_special_tokens=False).input_ids
    assert tokenizer.decode(found.ids[found.first_scored :]) == " red"
    with_space = Example(ASK.prompt, " red", chat=Chat())
    assert encode([with_space], tokenizer, "exact", longest=128) == [found]  # it is written once


def test_a_model_writes_on_from_what_a_template_asks_with(
    tiny: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tokenizer = tiny("llama"), chatting(LLAMA_2)
    asked: list[list[int]] = []
    written = torch.tensor([tokenizer(" red").input_ids])

    def generate(*, input_ids: Any, **_: Any) -> Any:
        asked.extend(input_ids.tolist())
        return torch.cat([input_ids, written], dim=1)

    monkeypatch.setattr(model, "generate", generate)
    found = Generator(model, tokenizer, [ASK], GenerateSettings(extract="^red"), longest=128).generate()
    assert (found.texts, found.correct.tolist()) == (("red",), [True])
    assert asked == [tokenizer("<s>[INST] what is 4 [/INST]").input_ids]


def test_arguments_of_the_template_are_handed_on_and_missed_where_answers_begin_otherwise() -> None:
    tokenizer = chatting(THINKING)
    at_once = Example("what is 4", "red", chat=Chat(arguments=(("enable_thinking", False),)))
    assert prompt_of(at_once, tokenizer) == "<user>what is 4<assistant><think></think>"
    with pytest.warns(StropWarning) as noted:
        assert prompt_of(ASK, tokenizer) == "<user>what is 4<assistant>"
    assert [str(one.message) for one in noted] == [
        "The tokenizer's chat template writes '<think></think>' before an answer, and asks for one without; where it has an "
        "argument for that, give it in the task file, such as chat: {enable_thinking: false}."
    ]
    assert prompt_of(ASK, tokenizer) == "<user>what is 4<assistant>"  # said once


@pytest.mark.parametrize(
    ("asks", "before", "said"),
    [
        ("<think>", "", "asks for an answer with '<think>', and writes one without"),
        ("<think>\n", "<think></think>", "writes '</think>' before an answer, and asks for one without"),
        ("<think>", "\n", "asks for an answer with '<think>', and writes one without"),
    ],
)
def test_answers_that_are_asked_for_in_other_words_than_they_are_written_in_are_noted(
    asks: str, before: str, said: str
) -> None:
    template = (
        "{% for m in messages %}<{{ m.role }}>{% if m.role == 'assistant' %}BEFORE{% endif %}{{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %}<assistant>ASKS{% endif %}"
    )
    tokenizer = chatting(template.replace("ASKS", asks).replace("BEFORE", before))
    with pytest.warns(StropWarning) as noted:
        assert prompt_of(ASK, tokenizer) == f"<user>what is 4<assistant>{asks}"
    assert [str(one.message) for one in noted] == [
        f"The tokenizer's chat template {said}; where it has an argument for that, give it in the task file, such as "
        "chat: {enable_thinking: false}."
    ]


def test_the_space_before_an_answer_is_found_though_the_last_prompt_alone_has_the_system_message() -> None:
    """As in templates of Mistral: with an answer behind it the prompt is not the last message any more."""
    tokenizer = chatting(
        "{% for m in messages %}{% if m.role == 'user' %}[INST] {% if loop.last %}{{ messages[0].content }} {% endif %}"
        "{{ m.content }}[/INST]{% elif m.role == 'assistant' %} {{ m.content }}{% endif %}{% endfor %}"
    )
    asked = Example(ASK.prompt, ASK.answer, chat=Chat("Be brief."))
    assert prompt_of(asked, tokenizer) == "[INST] Be brief. what is 4[/INST] "


# The first token


@pytest.mark.parametrize("prompt", ["<s>user: what is 4", "user: what is 4"])
@pytest.mark.parametrize("score", ["exact", "choice", "first_token", "generate", "perplexity"])
def test_a_first_token_that_is_written_in_the_prompt_is_not_put_there_again(
    tiny: Callable[..., Any], prompt: str, score: Any
) -> None:
    tokenizer, choices = spelled(begins=True), (" red", " 7") if score == "choice" else None
    (found, *_) = encode([Example(prompt, " red", choices)], tokenizer, score, longest=128)
    assert tokenizer.convert_ids_to_tokens(list(found.ids))[:3] == ["<s>", "u", "s"]
    generator = Generator(tiny("llama"), tokenizer, [Example(prompt, " red")], GenerateSettings(), longest=128)
    assert tokenizer.convert_ids_to_tokens(list(generator._prompts[0]))[:3] == ["<s>", "u", "s"]


def test_a_classifier_reads_a_first_token_once(tiny_classifier: Callable[..., Any]) -> None:
    tokenizer, labels = spelled(begins=True), Labels(("a", "b"), "accuracy")
    examples = [Example(text, "a", row=1) for text in ("<s>what is", "what is")]
    texts = encode_labelled(examples, tokenizer, labels, longest=128)
    assert texts[0].ids == texts[1].ids
    assert texts[0].ids[0] == tokenizer.bos_token_id not in texts[0].ids[1:]
    pairs = [Example(text, "a", row=1, pair="four") for text in ("<s>what is", "what is")]
    own = encode_labelled(pairs, tokenizer, labels, longest=128)
    assert own[0].ids == own[1].ids
    ClassScorer(tiny_classifier("llama"), tokenizer, examples, labels).evaluate()


def test_an_empty_text_is_no_text_that_is_too_long() -> None:
    with pytest.raises(
        TaskError, match=r"^row 3 \(prompt ''\): the text has no token; fill its column or drop the row\.$"
    ):
        encode_labelled([Example("", "a", row=3)], spelled(), Labels(("a", "b"), "accuracy"), longest=128)


def test_a_template_that_begins_with_the_first_token_has_it_once(tiny: Callable[..., Any]) -> None:
    tokenizer = chatting(LLAMA_2, begins=True)
    (found,) = encode([ASK], tokenizer, "exact", longest=128)
    assert found.ids.count(tokenizer.bos_token_id) == 1
    Scorer(tiny("llama"), tokenizer, [ASK], "exact").evaluate()


# The time

DATED = (
    "{{- strftime_now('%d %b %Y, %A %-d.%-m. %H:%M:%S, %j %% %y%m%d') }}\n"
    "{%- set year = strftime_now('%Y') | int %} {{ year - 1 }} {% for m in messages %}{{ m.content }}{% endfor %}"
)


def test_prompts_of_one_process_are_of_one_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = chatting("{{ strftime_now('%Y-%m-%d %H:%M:%S') }} {{ messages[0].content }}")
    first = prompt_of(ASK, tokenizer)

    class Later(datetime.datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return cls(2031, 5, 6)

    monkeypatch.setattr("transformers.utils.chat_template_utils.datetime", Later)
    monkeypatch.setattr("strop.scoring.today.datetime.datetime", Later)
    assert prompt_of(ASK, tokenizer) == first


@pytest.mark.parametrize(
    "moment", [datetime.datetime(2024, 2, 9, 7, 5, 3), datetime.datetime(2026, 12, 31, 23, 59, 58)]
)
def test_a_moment_is_spelled_as_the_template_would_spell_it(
    moment: datetime.datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Then(datetime.datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return moment

    with monkeypatch.context() as patch:
        patch.setattr("transformers.utils.chat_template_utils.datetime", Then)
        expected = chatting(DATED).apply_chat_template([{"role": "user", "content": "what is 4"}], tokenize=False)
    with dated(moment):
        assert asked_of(ASK, chatting(DATED)).prompt == expected
    assert str(moment.year) in expected


def test_a_template_without_the_time_is_written_as_it_stands() -> None:
    template = "\n\n  {% for m in messages %}\n{{ m.content }}{% endfor %}"
    dated_too = template + "{% if false %}{{ strftime_now('%Y') }}{% endif %}"
    expected = chatting(template).apply_chat_template([{"role": "user", "content": "what is 4"}], tokenize=False)
    assert asked_of(ASK, chatting(template)).prompt == asked_of(ASK, chatting(dated_too)).prompt == expected
