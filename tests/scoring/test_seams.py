"""Prompts that change with their answer: scored, learned and written on from the same tokens, and said once."""

import dataclasses
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fixtures.spelled import spelled

from strop.errors import StropWarning, TaskError
from strop.scoring import Scorer, greedy_continuations
from strop.scoring.encoding import encode
from strop.scoring.generation import Generator
from strop.scoring.seams import seams_of, tokens_before_answers
from strop.scoring.token_check import check_tokens
from strop.tasks import Example, GenerateSettings, Task, load_task
from strop.training.sequences import TrainSet

TOKENIZER = spelled()
SPACE = Example("Item 4 is ", "red", row=3)
WORD = Example("Item 4 is", "nt", row=4)
NOTE = (
    "row 3 (prompt 'Item 4 is '): the prompt's last token melts into the answer; begin the answer with the space, and end "
    "the prompt before it"
)


def before(example: Example) -> tuple[int, ...]:
    (sequence,) = encode([example], TOKENIZER, "exact", longest=128)
    return sequence.ids[: sequence.first_scored]


def spelling(ids: Sequence[int]) -> list[str]:
    return list(TOKENIZER.convert_ids_to_tokens(list(ids)))


def writing(monkeypatch: pytest.MonkeyPatch, model: Any, text: str) -> list[tuple[int, ...]]:
    """Let a model write a text, whatever it is asked; return the list that its prompts are put into."""
    asked: list[tuple[int, ...]] = []
    written = torch.tensor(TOKENIZER(text).input_ids)

    def generate(*, input_ids: Any, attention_mask: Any, **_: Any) -> Any:
        asked.extend(tuple(row[mask.bool()].tolist()) for row, mask in zip(input_ids, attention_mask, strict=True))
        return torch.cat([input_ids, written.expand(len(input_ids), -1)], dim=1)

    monkeypatch.setattr(model, "generate", generate)
    return asked


def test_what_is_written_goes_on_from_the_tokens_that_are_scored(
    tiny: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny("llama")
    assert spelling(before(SPACE))[-2:] == ["Ġ", "is"]  # alone the prompt ends in a "Ġ" of its own
    asked = writing(monkeypatch, model, " red")
    Generator(model, TOKENIZER, [SPACE], GenerateSettings(), longest=128).generate()
    greedy_continuations(model, TOKENIZER, [SPACE])
    assert asked == [before(SPACE)] * 2


def test_what_is_learned_goes_on_from_the_tokens_that_are_written_on_from(write_task: Callable[..., Path]) -> None:
    rows = [{"prompt": f"Item {number} is ", "answer": "red"} for number in range(9)]
    task = load_task(write_task(rows, score="generate", splits={"train": 0.4, "select": 0.3, "test": 0.3}))
    with pytest.warns(
        StropWarning, match=r"begin the answer with the space, and end the prompt before it \(3 rows in all"
    ):
        learned = TrainSet.of(task, TOKENIZER, limit=None, longest=128).sequences
    assert [one.ids[: one.prompt_length] for one in learned] == [before(example) for example in task.examples("train")]


def test_the_space_that_is_written_anew_is_no_part_of_what_is_read_out(
    tiny: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny("llama")
    for written, text in ((" red", "red"), ("red", "red"), ("  red", " red")):
        writing(monkeypatch, model, written)
        rule = GenerateSettings(extract="^(red)$")
        found = Generator(model, TOKENIZER, [SPACE], rule, longest=128).generate()
        assert found.texts == (text,)
        assert found.correct.tolist() == [text == "red"]


def test_it_is_said_once_with_row_and_remedy(tiny: Callable[..., Any]) -> None:
    model = tiny("llama")
    for examples, others in (([SPACE], ""), ([Example("Item is", " red"), SPACE, SPACE], r" \(2 rows in all\)")):
        with pytest.warns(StropWarning) as said:
            Scorer(model, TOKENIZER, examples, "exact").evaluate()
        assert [str(one.message) for one in said] == [NOTE + others.replace("\\", "") + "."]


def test_nothing_is_said_where_nothing_changes(tiny: Callable[..., Any]) -> None:
    model = tiny("llama")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for answer in (" red", "\nred", "7"):
            Scorer(model, TOKENIZER, [Example("Item 4:", answer)], "exact")
        Scorer(model, TOKENIZER, [Example("Item\n", "red")], "exact")  # YAML's | ends in a line break
        Scorer(model, spelled(begins=True), [Example("", "red is"), SPACE], "perplexity")
    assert [str(one.message) for one in said] == []


def test_line_breaks_that_are_cut_otherwise_before_an_answer_are_alike_too(
    tiny: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """GPT-2's rule: an empty line is one token at the end of a text, and two line breaks before a word."""
    model, example = tiny("llama"), Example("Item:\n\n", "red", row=5)
    assert spelling(TOKENIZER("Item:\n\n").input_ids)[-1] == "ĊĊ"
    assert spelling(before(example))[-2:] == ["Ċ", "Ċ"]
    said = (
        r"^row 5 .*: the prompt's last tokens change with the answer; begin the answer with the spaces or line breaks"
    )
    with pytest.warns(StropWarning, match=said):
        Scorer(model, TOKENIZER, [example], "generate")
    asked = writing(monkeypatch, model, "red")
    assert Generator(model, TOKENIZER, [example], GenerateSettings(), longest=128).generate().texts == ("red",)
    assert asked == [before(example)]


def test_letters_that_melt_are_refused_where_a_model_writes_and_noted_where_it_is_scored(
    tiny: Callable[..., Any],
) -> None:
    model = tiny("llama")
    said = (
        "row 4 (prompt 'Item 4 is'): the prompt's last token melts into the answer; end the prompt where a word ends, and "
        "begin the answer with the space"
    )
    with pytest.warns(StropWarning) as noted:
        Scorer(model, TOKENIZER, [WORD], "exact")
    assert str(noted[0].message) == f"{said}."
    with pytest.raises(TaskError) as refused:
        Generator(model, TOKENIZER, [WORD], GenerateSettings(), longest=128)
    assert str(refused.value) == f"{said}, for what is learned and what is written would go on from two prompts."


def test_a_stop_string_in_the_space_that_is_written_anew_is_refused(tiny: Callable[..., Any]) -> None:
    model = tiny("llama")
    with pytest.raises(TaskError, match=r"^row 3 .* melts into the answer; begin the answer with the space"):
        Generator(model, TOKENIZER, [SPACE], GenerateSettings(stop=(" ",)), longest=128)


def test_a_letter_of_several_bytes_that_melts_is_no_blank() -> None:
    alone = [TOKENIZER.convert_ids_to_tokens(index) for index in TOKENIZER("éa").input_ids]
    tokenizer = spelled([(alone[1], alone[2])])  # the second byte of é, and the letter behind it
    (sequence,) = encode([Example("xé", "a", row=1)], tokenizer, "exact", longest=128)
    (seam,) = seams_of([Example("xé", "a", row=1)], tokens_before_answers([sequence]), tokenizer).values()
    assert (seam.rest, seam.melts, seam.is_blank) == (None, True, False)


TEXT = st.text(st.sampled_from("is red\nn7é"), min_size=1, max_size=12)


@settings(max_examples=150, deadline=None)
@given(prompt=TEXT, answer=TEXT)
def test_whatever_is_not_refused_is_written_on_from_what_is_scored(prompt: str, answer: str) -> None:
    example = Example("x" + prompt, answer, gold="red", row=1)
    (sequence,) = encode([example], TOKENIZER, "generate", longest=128)
    kept = sequence.ids[: sequence.first_scored]
    seams = seams_of([example], [kept], TOKENIZER)
    if not seams:
        assert list(kept) == TOKENIZER(example.prompt).input_ids
    elif seams[0].is_blank:
        assert TOKENIZER.decode(kept) + str(seams[0].rest) == example.prompt
    else:
        assert TOKENIZER.decode(kept).rstrip("\ufffd") != example.prompt


# Choices: compared from the first token that any of them changes


def likelihood(model: Any, ids: Sequence[int], border: int) -> float:
    """Return the log-probability of all tokens from a border on, read alone."""
    with torch.no_grad():
        log_p = model(torch.tensor([list(ids)])).logits[0].double().log_softmax(-1)
    return sum(float(log_p[place - 1, ids[place]]) for place in range(border, len(ids)))


OFFERED = [
    ("Item 4 is ", ("red", "7"), [["Ġred"], ["Ġ", "7"]]),
    ("Item 4 is ", ("7", "red", "rent"), [["Ġ", "7"], ["Ġred"], ["Ġre", "n", "t"]]),
    ("Item 4 is", (" 7", " red"), [["Ġ", "7"], ["Ġred"]]),
    ("Item 4 is ", ("6", "7"), [["6"], ["7"]]),
    ("Item i", ("s", "t", "sn"), [["is"], ["i", "t"], ["isn"]]),
    ("Item:\n\n", ("red", "\n7"), [["Ċ", "Ċ", "r", "e", "d"], ["ĊĊ", "Ċ", "7"]]),
]


@pytest.mark.parametrize(("prompt", "choices", "scored"), OFFERED)
def test_choices_are_scored_from_the_first_token_that_any_of_them_changes(
    prompt: str, choices: tuple[str, ...], scored: list[list[str]]
) -> None:
    found = encode([Example(prompt, choices[0], choices)], TOKENIZER, "choice", longest=128)
    assert [spelling(one.ids[one.first_scored :]) for one in found] == scored
    assert len({one.ids[: one.first_scored] for one in found}) == 1


@pytest.mark.filterwarnings("ignore::strop.errors.StropWarning")
def test_choices_read_in_one_row_are_compared_as_one_by_one(tiny: Callable[..., Any]) -> None:
    model = tiny("llama")
    cases = [(Example(prompt, right, choices), scored) for prompt, choices, scored in OFFERED for right in choices]
    found = Scorer(model, TOKENIZER, [example for example, _ in cases], "choice").evaluate()
    for index, (example, scored) in enumerate(cases):
        texts = [TOKENIZER(example.prompt + choice).input_ids for choice in example.choices or ()]
        sums = [likelihood(model, ids, len(ids) - len(own)) for ids, own in zip(texts, scored, strict=True)]
        right = (example.choices or ()).index(example.answer)
        assert found.loss[index] == pytest.approx(-sums[right] / len(scored[right]), rel=1e-4)
        assert found.tokens[index] == len(scored[right])
        assert bool(found.correct[index]) == (int(np.argmax(sums)) == right)  # type: ignore[index]


def test_answers_of_choices_are_learned_and_asked_of_from_the_border_of_all(
    tiny: Callable[..., Any], write_task: Callable[..., Path]
) -> None:
    rows = [{"prompt": f"Item {number} is ", "answer": ("red", "7")[number % 2]} for number in range(20)]
    keys: dict[str, Any] = {"choices": ["red", "7"], "splits": {"train": 0.4, "select": 0.3, "test": 0.3}}
    task = load_task(write_task(rows, score="choice", **keys))
    with pytest.warns(StropWarning):
        learned = TrainSet.of(task, TOKENIZER, limit=None, longest=128).sequences
    examples = task.examples("train")
    assert {spelling(one.ids[one.prompt_length :])[0] for one in learned} == {"Ġred", "Ġ"}
    scored = encode(examples, TOKENIZER, "choice", longest=128)
    right = [one for one in scored if (examples[one.owner].choices or ())[one.choice] == examples[one.owner].answer]
    assert [(one.ids, one.prompt_length) for one in learned] == [(one.ids, one.first_scored) for one in right]


def test_labels_of_the_first_token_are_told_apart_from_the_border_of_all() -> None:
    apart = Example("Item is ", "7", choices=("red", "7"))
    (found,) = encode([apart], TOKENIZER, "first_token", longest=128)
    assert spelling(found.ids[found.first_scored :]) == ["Ġ", "7"]
    with pytest.raises(TaskError, match="the choices '6' and '7' begin with the same token 'Ġ'"):
        encode([Example("Item is ", "6", choices=("red", "6", "7"))], TOKENIZER, "first_token", longest=128)


def test_a_prompt_that_no_choice_leaves_a_token_of_is_refused() -> None:
    with pytest.raises(
        TaskError, match=r"^row 2 \(prompt 'i'\): the prompt has no token before the answer 's'; give it one"
    ):
        encode([Example("i", "s", choices=("s", "t"), row=2)], TOKENIZER, "choice", longest=128)


def test_a_check_of_a_task_notes_them_and_keeps_them_apart_from_rows_that_do_not_fit() -> None:
    plain = Example("Item 4 is", " red", row=5)
    found = check_tokens(Task("made", "exact", {"test": (plain, SPACE, SPACE)}), TOKENIZER, longest=128)
    assert found.seams == (NOTE, NOTE)
    assert found.bad == ()
    assert check_tokens(Task("made", "exact", {"test": (plain,)}), TOKENIZER, longest=128).seams == ()


def test_a_check_names_every_row_that_cannot_be_written_on_from() -> None:
    long = Example("Item 4 is" + " 4" * 40, " red", row=6, gold="red")
    letters = dataclasses.replace(WORD, gold="nt")
    task = Task("made", "generate", {"test": (letters, long)}, generate=GenerateSettings(max_new_tokens=60))
    melted, too_long = check_tokens(task, TOKENIZER, longest=100).bad
    assert melted.startswith("row 4 (prompt 'Item 4 is'): the prompt's last token melts into the answer; ")
    assert too_long.startswith("row 6 (prompt 'Item 4 is 4")
    assert "and 60 new ones (generate.max_new_tokens) do not fit the model's context of 100" in too_long
