"""A model on prompts with examples before them: as if these were written into the prompt, for every score; as turns in chats."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import strop
from strop.errors import TaskError
from strop.interventions import Positions
from strop.scoring import Scorer
from strop.scoring.chat_template import prompt_of
from strop.scoring.encoding import encode
from strop.scoring.generation import Generator
from strop.tasks import Example, GenerateSettings, Shot, Task, load_task
from strop.tasks.chat import Chat
from strop.tasks.few_shot import shown_text

SHOTS = (Shot("Lyon is in", " France"), Shot("Curitiba is in", " Brazil"))
TEMPLATE = (
    "{% for m in messages %}<|end|>{{ m.role }}: {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|end|>assistant:\n{% endif %}"
)


@pytest.mark.parametrize("score", ["exact", "first_token", "choice", "generate"])
def test_shots_score_as_if_they_were_written_into_the_prompt(
    tiny: Callable[..., Any], small_tokenizer: Any, score: Any
) -> None:
    choices = (" France", " Brazil") if score == "choice" else None
    shown = [Example(f"{name} is in", " France", choices, shots=SHOTS) for name in ("Paris", "The city of Lyon")]
    written = [dataclasses.replace(example, prompt=shown_text(example), shots=()) for example in shown]
    settings = GenerateSettings(max_new_tokens=4, stop=("\n",))
    ours, theirs = (
        Scorer(tiny("llama"), small_tokenizer, examples, score, generate=settings).evaluate()
        for examples in (shown, written)
    )
    assert ours.loss == pytest.approx(theirs.loss)
    assert np.array_equal(ours.correct, theirs.correct)
    assert (ours.said, ours.generated) == (theirs.said, theirs.generated)


def test_shots_of_a_chat_are_turns_of_user_and_assistant(changed: Callable[..., Any]) -> None:
    tokenizer = changed(template="<|end|> $A")
    tokenizer.chat_template = TEMPLATE
    example = Example(
        "Where is Paris?", "France", chat=Chat("Be brief."), shots=(Shot("Where is Curitiba?", "Brazil"),)
    )
    assert prompt_of(example, tokenizer) == (
        "<|end|>system: Be brief.\n<|end|>user: Where is Curitiba?\n<|end|>assistant: Brazil\n"
        "<|end|>user: Where is Paris?\n<|end|>assistant:\n"
    )
    (found,) = encode([example], tokenizer, "exact", longest=256)
    assert tokenizer.decode(found.ids[found.first_scored :]) == "France"


def test_positions_count_the_whole_prompt(small_tokenizer: Any) -> None:
    example = Example("Paris is in", " France", shots=SHOTS)
    (found,) = encode([example], small_tokenizer, "exact", longest=128)
    assert found.first_scored == len(small_tokenizer(shown_text(example))["input_ids"])
    assert Positions(2, 1).last == 1


def test_a_row_that_does_not_fit_with_its_shots_is_named_by_its_own_words(facts: Path, small_tokenizer: Any) -> None:
    task = load_task(facts).with_shots(5)
    example = task.examples("test")[0]
    with pytest.raises(TaskError, match=rf"row {example.row} \(prompt '{example.prompt}'\): .* do not fit"):
        encode([example], small_tokenizer, "exact", longest=40)


def written_by(model: Any, tokenizer: Any, examples: list[Example]) -> tuple[str, ...]:
    return Generator(model, tokenizer, examples, GenerateSettings(max_new_tokens=6), longest=128).generate().texts


def test_what_is_generated_ends_where_a_next_example_would_begin(
    tiny: Callable[..., Any], small_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Generator, "_text", lambda *_: " France\nBerlin is in Germany")
    example = Example("Paris is in", " France", shots=SHOTS)
    long_answers = dataclasses.replace(example, shots=(Shot("List two:", " a\nb"),))
    whole = " France\nBerlin is in Germany"
    for examples, text in (
        ([example], " France"),
        ([long_answers], whole),
        ([Example("Paris is in", " France")], whole),
    ):
        assert written_by(tiny("llama"), small_tokenizer, examples) == (text,)


def test_the_shots_of_a_task_reach_the_model(knowing: Callable[[], Any], small_tokenizer: Any, task: Task) -> None:
    plain, shown = (
        strop.evaluate(knowing(), small_tokenizer, each, split="test", limit=6) for each in (task, task.with_shots(2))
    )
    assert not np.allclose(plain.loss, shown.loss)
    assert np.array_equal(plain.groups, shown.groups)
