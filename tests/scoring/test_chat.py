"""Chats: the prompt as a user's message in the tokenizer's own template, the answer right behind it."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from strop.errors import TaskError
from strop.scoring import Scorer
from strop.scoring.chat_template import prompt_of
from strop.scoring.encoding import encode
from strop.tasks import Example, load_task
from strop.tasks.chat import Chat

TEMPLATE = (
    "{% for m in messages %}{% if m.role == 'system' and refuse is defined %}{{ raise_exception('no system') }}{% endif %}"
    "<|end|>{{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}<|end|>assistant:\n{% endif %}"
)
SCORES = ["exact", "first_token", "choice", "generate", "perplexity"]


@pytest.fixture
def chatty(changed: Callable[..., Any]) -> Any:
    """A tokenizer with a chat template, which begins every text that is none with its special token."""
    tokenizer = changed(template="<|end|> $A")
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def test_the_prompt_is_the_users_message_and_the_answer_follows_it(chatty: Any, small_tokenizer: Any) -> None:
    example = Example("The city of Lyon is in", "France", chat=Chat("Be brief."))
    (found,) = encode([example], chatty, "exact", longest=128)
    prompt = "<|end|>system: Be brief.\n<|end|>user: The city of Lyon is in\n<|end|>assistant:\n"
    assert chatty.decode(found.ids[: found.first_scored]) == prompt
    assert chatty.decode(found.ids[found.first_scored :]) == "France"
    assert list(found.ids) == small_tokenizer(prompt + "France")["input_ids"]  # no special token of the tokenizer's own
    assert found.ids.count(chatty.eos_token_id) == 3


def test_without_a_system_there_is_no_system_message(chatty: Any) -> None:
    assert prompt_of(Example("Hello", "you", chat=Chat()), chatty) == "<|end|>user: Hello\n<|end|>assistant:\n"


@pytest.mark.parametrize("score", SCORES)
def test_a_chat_scores_as_its_template_written_out(
    tiny: Callable[..., Any], chatty: Any, small_tokenizer: Any, score: Any
) -> None:
    model = tiny("llama")
    choices = ("France", "Brazil") if score == "choice" else None
    examples = [Example(f"Where is {n}?", "France", choices, chat=Chat("Say.")) for n in ("Lyon", "the city of Lyon")]
    written_out = [
        Example(chatty.apply_chat_template(
            [{"role": "system", "content": "Say."}, {"role": "user", "content": e.prompt}],
            tokenize=False, add_generation_prompt=True,
        ), "France", choices)
        for e in examples
    ]  # fmt: skip
    ours = Scorer(model, chatty, examples, score).evaluate()
    theirs = Scorer(model, small_tokenizer, written_out, score).evaluate()
    assert ours.loss.tolist() == theirs.loss.tolist()
    assert ours.generated == theirs.generated
    assert (ours.generated is not None) == (score == "generate")


def test_a_task_file_says_chat_and_what_the_system_says(write_task: Callable[..., Path], chatty: Any) -> None:
    task = load_task(write_task(chat=True, system="Key {{ key }}."))
    for example in task.examples("test"):
        assert example.chat == Chat(f"Key {example.columns['key']}.")
    plain = load_task(write_task())
    assert {example.chat for example in plain.examples("test")} == {None}
    chats = {load_task(write_task(chat=True, system=system)).fingerprint for system in (None, "A", "B")}
    assert len({plain.fingerprint, *chats}) == 4


def test_a_tokenizer_without_a_template_is_refused_in_one_sentence(
    tiny: Callable[..., Any], small_tokenizer: Any
) -> None:
    assert small_tokenizer.chat_template is None
    with pytest.raises(TaskError) as raised:
        Scorer(tiny("llama"), small_tokenizer, [Example("Hello", "you", chat=Chat())], "exact")
    assert str(raised.value) == (
        "The task says chat: true, and this model's tokenizer has no chat template; take an instruction-tuned model, or "
        "write the template into prompt:."
    )


def test_a_template_that_knows_no_system_says_so(chatty: Any) -> None:
    tokenizer = copy.deepcopy(chatty)
    tokenizer.chat_template = "{% set refuse = true %}" + TEMPLATE
    with pytest.raises(
        TaskError, match=r"^The tokenizer's chat template refuses the messages: no system; leave out system"
    ):
        prompt_of(Example("Hello", "you", chat=Chat("Be brief.")), tokenizer)
    assert "Hello" in prompt_of(Example("Hello", "you", chat=Chat()), tokenizer)


def test_a_system_without_a_chat_is_refused(write_task: Callable[..., Path]) -> None:
    with pytest.raises(TaskError, match="system goes with chat: true, for only a chat has a system message"):
        load_task(write_task(system="Be brief."))


@pytest.mark.real
def test_the_real_model_is_asked_in_its_own_template(real: Any) -> None:
    model, tokenizer = real
    examples = [Example("What is the capital of France?", "The capital of France is Paris.", gold="Paris", chat=Chat())]
    from strop.tasks import GenerateSettings

    settings = GenerateSettings(max_new_tokens=12, match="contains")
    found = Scorer(model, tokenizer, examples, "generate", generate=settings).evaluate()
    assert found.correct is not None
    assert found.correct.all()
    (sequence,) = encode(examples, tokenizer, "exact", longest=512)
    assert tokenizer.decode(sequence.ids[: sequence.first_scored]).endswith("<|im_start|>assistant\n")
