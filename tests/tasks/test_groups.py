"""Examples of one group are no independent evidence, and a blank is no group."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from strop.errors import TaskError
from strop.scoring import Evaluation, Scorer, compare
from strop.tasks import Example, load_task
from strop.tasks.examples import group_indices, group_key


def evaluation(correct: list[bool], groups: list[int] | None) -> Evaluation:
    count = len(correct)
    return Evaluation(
        "exact",
        np.ones(count),
        np.ones(count, dtype=np.int64),
        np.array(correct),
        groups=None if groups is None else np.array(groups),
    )


def test_copies_of_one_group_do_not_narrow_the_interval() -> None:
    generator = np.random.default_rng(0)
    before, after = generator.random(60) < 0.3, generator.random(60) < 0.6
    alone = compare(evaluation(before.tolist(), None), evaluation(after.tolist(), None))
    copied_before, copied_after = np.repeat(before, 25).tolist(), np.repeat(after, 25).tolist()
    groups = np.repeat(np.arange(60), 25).tolist()
    grouped = compare(evaluation(copied_before, groups), evaluation(copied_after, groups))
    naive = compare(evaluation(copied_before, None), evaluation(copied_after, None))
    assert grouped.gain == pytest.approx(alone.gain)
    assert grouped.ci95 == pytest.approx(alone.ci95, abs=0.02)
    assert naive.ci95[1] - naive.ci95[0] < 0.4 * (grouped.ci95[1] - grouped.ci95[0])


def test_the_scorer_carries_the_groups(tiny: Callable[..., Any], small_tokenizer: Any) -> None:
    examples = [Example(f"The city of {n} is in", " France", group=g) for n, g in (("A", "x"), ("B", None), ("C", "x"))]
    found = Scorer(tiny("llama"), small_tokenizer, examples, "exact").evaluate()
    assert found.groups is not None
    assert found.groups.tolist() == [0, 1, 0]


def test_a_blank_group_ties_no_rows_together(tmp_path: Path) -> None:
    rows = [{"prompt": f"q{n}", "answer": " a", "subject": None if n < 90 else f"s{n}"} for n in range(100)]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "t.yaml").write_text(
        "name: t\ndata: t.jsonl\ngroup: subject\nsplits: {train: 0.5, select: 0.2, test: 0.3}\n"
    )
    assert load_task(tmp_path / "t.yaml").counts == {"train": 50, "select": 20, "test": 30}


def test_a_row_repeated_in_a_given_file_counts_once(tmp_path: Path) -> None:
    for name, prompts in (("select", "ab"), ("test", "cccccd")):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(json.dumps({"prompt": p, "answer": " x"}) for p in prompts))
    (tmp_path / "t.yaml").write_text("name: t\nsplits: {files: {select: select.jsonl, test: test.jsonl}}\n")
    assert load_task(tmp_path / "t.yaml").counts == {"select": 2, "test": 2}


SPELLINGS = ("Zürich", "ZÜRICH", "  zu\u0308rich ", "Zurich")


@pytest.mark.parametrize("other", SPELLINGS)
def test_spellings_of_one_group_are_one(other: str) -> None:
    assert group_key(other) == group_key("Zürich")
    assert group_indices([Example("a", " x", group="Zürich"), Example("b", " x", group=other)]).tolist() == [0, 0]


def test_names_that_differ_in_more_than_accents_and_case_are_several() -> None:
    names = ["San José", "San Jose 2", "Sanjosé", "か", "が", "मत", "मति"]
    assert len({group_key(name) for name in names}) == len(names)


def test_spellings_of_one_group_never_stand_in_two_splits(tmp_path: Path) -> None:
    rows = [{"prompt": f"{s} {n}", "answer": " a", "city": f"{s}{n}"} for n in range(30) for s in ("Zürich", "ZURICH")]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "t.yaml").write_text("name: t\ndata: t.jsonl\ngroup: city\nsplits: {select: 0.4, test: 0.6}\n")
    splits = load_task(tmp_path / "t.yaml").splits
    held = {name: {example.group or "" for example in examples} for name, examples in splits.items()}
    assert (len(held["select"]), len(held["test"])) == (24, 36)  # the spelling stays
    assert {group_key(name) for name in held["select"]}.isdisjoint(group_key(name) for name in held["test"])


def test_given_files_with_spellings_of_one_group_overlap(tmp_path: Path) -> None:
    for name, city in (("select", "Zürich"), ("test", "ZURICH")):
        rows = [{"prompt": f"{name} {n}", "answer": " a", "city": f"{city}{n}"} for n in range(2)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    text = "name: t\ngroup: city\nsplits: {files: {select: select.jsonl, test: test.jsonl}}\n"
    (tmp_path / "t.yaml").write_text(text)
    with pytest.raises(TaskError, match="have the same group 'ZURICH0'"):
        load_task(tmp_path / "t.yaml")
