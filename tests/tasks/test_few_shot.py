"""Examples before a prompt: which rows, in which order, for whom, and when they are refused."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.fixtures.task_files import WriteTask

from strop.errors import TaskError, UsageError
from strop.tasks import Example, Shot, Task, load_task
from strop.tasks.few_shot import shown_text

SHARES = {"train": 0.4, "select": 0.3, "test": 0.3}


def made(train: int, *, groups: int | None = None, **fields: Any) -> Task:
    def row(number: int, split: str) -> Example:
        group = None if groups is None or split != "train" else f"g{number % groups}"
        return Example(f"{split} {number} =", f" {number}", row=number + 1, group=group)

    sizes = {"train": train, "select": 3, "test": 4}
    splits = {name: tuple(row(number, name) for number in range(size)) for name, size in sizes.items()}
    return Task(**{"name": "made", "score": "exact", "splits": splits, **fields})


@given(train=st.integers(2, 30), count=st.integers(1, 8), seed=st.integers(0, 99))
def test_all_held_examples_have_the_same_train_rows_and_no_row_is_shown_to_itself(
    train: int, count: int, seed: int
) -> None:
    task = made(train)
    if count >= train:
        with pytest.raises(TaskError, match="train rows that may be shown before a prompt, too few"):
            task.with_shots(count, seed=seed)
        return
    found = task.with_shots(count, seed=seed)
    rows = {Shot(e.prompt, e.answer): e for e in task.splits["train"]}
    held = {example.shots for split in ("select", "test") for example in found.splits[split]}
    (common,) = held
    assert len(common) == len(set(common)) == count
    assert set(common) <= rows.keys()
    for example in found.splits["train"]:
        own = Shot(example.prompt, example.answer)
        assert own not in example.shots
        assert len(set(example.shots)) == count
        assert example.shots == common or own in common
        kept = [shot for shot in common if shot != own]
        assert list(example.shots[: len(kept)]) == kept  # the next row of the order comes last


def test_fewer_shots_are_the_first_of_more_and_another_seed_draws_others() -> None:
    task = made(20)
    five, two, other = (task.with_shots(k, seed=s).examples("test")[0].shots for k, s in ((5, 0), (2, 0), (5, 1)))
    assert five[:2] == two
    assert other != five
    assert task.with_shots(5).examples("test")[0].shots == five


def test_no_train_row_is_shown_to_its_group() -> None:
    task = made(12, groups=4).with_shots(3)
    group_of = {Shot(e.prompt, e.answer): e.group for e in task.splits["train"]}
    for example in task.splits["train"]:
        assert example.group not in {group_of[shot] for shot in example.shots}
    with pytest.raises(TaskError, match="has 3 train rows that may be shown before a prompt, too few for 4 shots; ask"):
        made(6, groups=2).with_shots(4)


def test_an_example_stays_what_it_was_and_the_fingerprint_tells_shots_apart() -> None:
    task = made(9, groups=9)
    found = task.with_shots(2)
    for split, members in task.splits.items():
        bare = [dataclasses.replace(example, shots=()) for example in found.splits[split]]
        assert bare == list(members)
        assert [e.identity for e in found.splits[split]] == [e.identity for e in members]
    marks = [
        task.fingerprint,
        found.fingerprint,
        task.with_shots(2, seed=1).fingerprint,
        task.with_shots(1).fingerprint,
    ]
    assert len(set(marks)) == 4
    assert found.with_shots(0) == task
    assert found.with_shots(0).fingerprint == task.fingerprint
    assert found.with_shots(1).shots == task.with_shots(1).shots


def test_a_sample_has_the_shots_of_the_whole() -> None:
    found = made(9).with_shots(2)
    assert set(found.examples("test", limit=2)) <= set(found.examples("test"))


def test_the_task_file_asks_for_shots(write_task: WriteTask) -> None:
    plain = load_task(write_task(splits=SHARES))
    task = load_task(write_task(splits=SHARES, shots={"count": 3, "seed": 5}))
    assert task.shots is not None
    assert (task.shots.count, task.shots.seed) == (3, 5)
    assert task == plain.with_shots(3, seed=5)
    assert task.with_shots(2) == plain.with_shots(2, seed=5)  # the seed is the task file's


def test_a_blank_line_parts_shots_only_where_texts_have_line_breaks() -> None:
    task = made(6)
    rows = tuple(dataclasses.replace(e, prompt=f"Add:\n{e.prompt}") for e in task.splits["train"])
    other = dataclasses.replace(task, splits={**task.splits, "train": rows})
    for each, end in ((task, "\n"), (other, "\n\n")):
        found = each.with_shots(2)
        assert {shot.end for members in found.splits.values() for e in members for shot in e.shots} == {end}


def test_shots_are_written_before_the_prompt() -> None:
    example = Example("c =", " 3", shots=(Shot("a =", " 1"), Shot("b =", " 2", "\n\n")))
    assert shown_text(example) == "a = 1\nb = 2\n\nc ="
    assert shown_text(dataclasses.replace(example, shots=())) == "c ="


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"shots": {"count": 2}}, "Task made has no train split to take shots from; give it a share under splits:"),
        ({"shots": {"count": 0}, "splits": SHARES}, "key shots.count: Input should be greater than 0"),
        ({"shots": {"number": 2}, "splits": SHARES}, "key shots.count: Field required|shots: has count, seed"),
        ({"shots": {"count": 9}, "splits": SHARES}, "Task made has 8 train rows that may be shown"),
        (
            {"shots": {"count": 2}, "splits": SHARES, "score": "perplexity"},
            "not with score: perplexity; leave them out",
        ),
        (
            {"shots": {"count": 2}, "splits": SHARES, "score": "label", "labels": "number"},
            "shots go with answers that are written, not with score: label; leave them out",
        ),
    ],
)
def test_a_task_file_with_shots_that_cannot_be_is_refused(
    write_task: WriteTask, keys: dict[str, Any], sentence: str
) -> None:
    path: Path = write_task(**keys)
    with pytest.raises(TaskError, match=sentence):
        load_task(path)


def test_shots_that_cannot_be_are_refused_in_python() -> None:
    with pytest.raises(UsageError, match="A prompt has 0 shots or more, not -1"):
        made(4).with_shots(-1)
    with pytest.raises(UsageError, match="has score: perplexity, and shots go with answers that are written"):
        made(4, score="perplexity").with_shots(1)


def test_no_row_is_shown_to_one_with_its_prompt_and_answer_whatever_the_choices(write_task: WriteTask) -> None:
    rows = [
        {"q": f"q{number % 7}", "a": f"a{number % 7}", "other": f"b{number}"} for number in range(42)
    ]  # each prompt six times, with other choices
    choices = [" {{ a }}", " {{ other }}"]
    path = write_task(rows, prompt="{{ q }}", answer=" {{ a }}", choices=choices, score="choice", splits=SHARES)
    found = load_task(path).with_shots(3)
    assert sum(found.counts.values()) == 42
    for split in found.counts:
        for example in found.examples(split):
            assert len(set(example.shots)) == 3
            assert example.prompt not in [shot.prompt for shot in example.shots]
