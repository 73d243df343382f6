"""Answers that two runs kept, pair by pair: as if both models had just been asked."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.fixtures.results import result_of, write_run

from strop.runs import KeptAnswer, compare_runs, pair_answers, write_answers
from strop.statistics import compare_differences, spread_of

COUNT = 60


def answers(right: Any = lambda n: n % 3 == 0, **changes: Any) -> list[KeptAnswer]:
    return [
        KeptAnswer(
            row=n, score="exact", prompt=f"{n}", wanted="x", right_before=n % 4 == 0, right_after=right(n), loss_before=3.0,
            loss_after=2.0 - n / 100, category=f"kind {n % 3}", group=f"g{n // 2}", **changes,
        )
        for n in range(COUNT)
    ]  # fmt: skip


def test_right_and_wrong_answers_are_paired_by_groups_and_spread_over_categories() -> None:
    a, b = answers(), answers(lambda n: n % 3 != 2)
    found = pair_answers(a, b)
    assert found is not None
    n = np.arange(COUNT)
    before, after = (n % 3 == 0).astype(float), (n % 3 != 2).astype(float)
    groups = n // 2
    assert found.comparison == compare_differences(after - before, groups=groups, right_or_wrong=True)
    categories = [f"kind {each % 3}" for each in n]
    assert found.categories == spread_of(before, after, categories=categories, groups=groups)
    assert pair_answers(a, a).comparison.gain == 0  # type: ignore[union-attr]


def test_losses_are_paired_where_nothing_is_right_or_wrong() -> None:
    a = [dataclasses.replace(each, right_before=None, right_after=None, category=None) for each in answers()]
    b = [dataclasses.replace(each, loss_after=1.0) for each in a]
    found = pair_answers(a, b)
    assert found is not None
    assert found.comparison.gain == pytest.approx(np.mean([2.0 - n / 100 - 1.0 for n in range(COUNT)]))
    assert found.categories is None
    b[7] = dataclasses.replace(b[7], loss_after=None)  # it was not finite
    assert pair_answers(a, b) is None


@pytest.mark.parametrize("changed", [{"row": 99}, {"prompt": "other"}, {"wanted": "y"}, {"score": "contains"}])
def test_answers_to_other_examples_are_not_paired(changed: dict[str, Any]) -> None:
    a = answers()
    b = [dataclasses.replace(a[0], **changed), *a[1:]]
    assert pair_answers(a, b) is None
    assert pair_answers(a, a[:-1]) is None
    assert pair_answers([], []) is None


def run(folder: Path, kept: list[KeptAnswer] | None, **changes: Any) -> Path:
    write_run(folder, result_of(**changes))
    if kept is not None:
        write_answers(folder, kept)
    return folder


def test_two_runs_that_kept_their_answers_are_compared_example_by_example(tmp_path: Path) -> None:
    a, b = run(tmp_path / "a", answers()), run(tmp_path / "b", answers(lambda n: n % 3 != 2))
    found = compare_runs(a, b)
    assert found.better == "B"
    assert found.b_over_a == pair_answers(answers(), answers(lambda n: n % 3 != 2))
    assert found.to_json()["paired"] is True
    assert compare_runs(b, a).better == "A"


def test_runs_are_not_paired_where_one_kept_nothing_or_the_metric_is_of_no_single_answer(tmp_path: Path) -> None:
    a, old = run(tmp_path / "a", answers()), run(tmp_path / "old", None)
    assert compare_runs(a, old).b_over_a is None
    of_f1 = [run(tmp_path / name, answers(), metric="macro_f1") for name in ("c", "d")]
    assert compare_runs(*of_f1).b_over_a is None
