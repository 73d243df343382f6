"""Comparing two evaluations pair by pair: the p-value counts groups, the interval holds the gain, and they agree."""

import dataclasses
import json
import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from strop.errors import UsageError
from strop.scoring import Evaluation, compare, spread
from strop.statistics import Comparison


def evaluation(correct: list[bool] | None, loss: list[float] | None = None, score: str = "exact") -> Evaluation:
    count = len(correct if correct is not None else loss or [])
    return Evaluation(
        score,  # type: ignore[arg-type]
        np.array(loss if loss is not None else [1.0] * count),
        np.ones(count, dtype=np.int64),
        None if correct is None else np.array(correct),
    )


def with_changes(*, fixed: int, broken: int, right: int = 3, wrong: int = 4, seed: int = 0) -> Comparison:
    before = [False] * fixed + [True] * broken + [True] * right + [False] * wrong
    after = [True] * fixed + [False] * broken + [True] * right + [False] * wrong
    return compare(evaluation(before), evaluation(after), seed=seed)


@pytest.mark.parametrize(
    ("fixed", "broken", "p_value"),
    [
        (10, 2, 2 * (1 + 12 + 66) / 4096),
        (5, 0, 2 / 32),
        (0, 6, 2 / 64),
        (1, 0, 1.0),
        (7, 7, 1.0),
        (59, 6, 2 * sum(math.comb(65, k) for k in range(7)) / 2**65),
    ],
)
def test_the_p_value_is_that_of_the_textbook(fixed: int, broken: int, p_value: float) -> None:
    assert with_changes(fixed=fixed, broken=broken).p_value == pytest.approx(p_value, rel=1e-9)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 40), st.integers(1, 40), st.integers(0, 3))
def test_counts_gain_p_value_and_interval_belong_together(
    fixed: int, broken: int, right: int, wrong: int, seed: int
) -> None:
    found = with_changes(fixed=fixed, broken=broken, right=right, wrong=wrong, seed=seed)
    assert (found.fixed, found.broken) == (fixed, broken)
    assert found.gain == pytest.approx((fixed - broken) / (fixed + broken + right + wrong))
    expected = scipy.stats.binomtest(fixed, fixed + broken).pvalue if fixed + broken else 1.0
    assert found.p_value == pytest.approx(expected)
    low, high = found.ci95
    assert low <= found.gain + 1e-12
    assert high >= found.gain - 1e-12
    assert -1 <= low <= high <= 1


def test_the_interval_is_as_wide_as_theory_says() -> None:
    found = with_changes(fixed=100, broken=50, right=400, wrong=450)
    spread = 1.96 * math.sqrt((0.15 - 0.05**2) / 1000)
    assert found.ci95 == pytest.approx((0.05 - spread, 0.05 + spread), abs=0.0015)


def test_the_interval_of_losses_is_as_wide_as_theory_says() -> None:
    change = np.random.default_rng(1).normal(0.3, 1.0, size=400)
    base, edited = evaluation(None, [5.0] * 400, "perplexity"), evaluation(None, list(5.0 - change), "perplexity")
    spread = 1.96 * change.std() / 20
    assert compare(base, edited).ci95 == pytest.approx((change.mean() - spread, change.mean() + spread), abs=0.012)


def test_the_same_seed_gives_the_same_interval() -> None:
    assert with_changes(fixed=30, broken=11, seed=5) == with_changes(fixed=30, broken=11, seed=5)
    losses = list(np.random.default_rng(0).normal(3, 1, size=50))
    base, edited = evaluation(None, [3.0] * 50, "perplexity"), evaluation(None, losses, "perplexity")
    assert compare(base, edited, seed=1) == compare(base, edited, seed=1)
    assert compare(base, edited, seed=1) != compare(base, edited, seed=2)


@pytest.mark.parametrize("correct", [[True, False, True], None])
def test_an_evaluation_compared_with_itself_gains_nothing(correct: list[bool] | None) -> None:
    score = "exact" if correct else "perplexity"
    one = evaluation(correct, [1.0, 2.0, 3.0], score)
    found = compare(one, one)
    assert found == Comparison(gain=0.0, ci95=(0.0, 0.0), p_value=1.0, fixed=0, broken=0)


def test_a_lower_loss_is_a_gain_where_loss_is_the_measure() -> None:
    base = evaluation(None, [2.0] * 12, "perplexity")
    edited = evaluation(None, [1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7, 1.75, 1.8, 1.85, 2.52], "perplexity")
    found = compare(base, edited)
    assert found.gain == pytest.approx(2.0 - edited.loss.mean())
    assert found.gain > 0
    assert (found.fixed, found.broken) == (11, 1)
    assert found.p_value == pytest.approx(
        scipy.stats.permutation_test(
            (base.loss - edited.loss,), np.mean, permutation_type="samples", n_resamples=np.inf
        ).pvalue
    )
    turned = compare(edited, base)
    assert turned.gain == pytest.approx(-found.gain)
    assert (turned.fixed, turned.broken) == (1, 11)


def test_evaluations_of_other_examples_or_scores_are_refused() -> None:
    with pytest.raises(UsageError, match="not 2 scored by exact with 3 scored by exact"):
        compare(evaluation([True] * 2), evaluation([True] * 3))
    with pytest.raises(UsageError, match="not 2 scored by exact with 2 scored by choice"):
        compare(evaluation([True] * 2), evaluation([True] * 2, score="choice"))
    with pytest.raises(UsageError, match="not 2 scored by exact with 2 scored by perplexity"):
        compare(evaluation([True] * 2), evaluation(None, [1.0] * 2, score="perplexity"))


def test_a_comparison_is_plain_json() -> None:
    found = with_changes(fixed=10, broken=2)
    assert json.loads(json.dumps(found.to_json())) == {
        "gain": found.gain, "ci95": list(found.ci95), "p_value": found.p_value, "fixed": 10, "broken": 2,
    }  # fmt: skip


def by_kind(correct: list[bool] | None, loss: list[float] | None = None, kinds: str = "aabb") -> Evaluation:
    score = "exact" if correct is not None else "perplexity"
    return dataclasses.replace(evaluation(correct, loss, score), categories=tuple(kinds), groups=np.array([0, 1, 1, 2]))


def test_the_spread_is_that_of_right_answers_by_category() -> None:
    found = spread(by_kind([False, False, True, True]), by_kind([True, True, False, True]))
    assert found is not None
    assert [(each.name, each.gain, each.count) for each in found.categories] == [("a", 1.0, 2), ("b", -0.5, 2)]
    assert (found.measure, found.macro_gain) == ("accuracy", 0.25)


def test_the_spread_is_that_of_losses_where_nothing_is_right_or_wrong() -> None:
    found = spread(by_kind(None, [2.0, 2.0, 3.0, 3.0]), by_kind(None, [1.5, 1.5, 3.5, 3.25]))
    assert found is not None
    assert [(each.name, each.gain) for each in found.categories] == [("a", 0.5), ("b", -0.375)]
    assert found.measure == "loss"


def test_without_categories_or_an_edit_there_is_no_spread() -> None:
    one = by_kind([True, False, True, True])
    assert spread(one, one) is None
    assert spread(evaluation([True]), evaluation([False])) is None


def test_categories_fit_the_examples() -> None:
    with pytest.raises(UsageError, match="2 losses has 3 values of categories"):
        dataclasses.replace(evaluation([True, False]), categories=("a", "b", "c"))
    one = by_kind([True, False, True, True])
    for judge in (compare, spread):
        with pytest.raises(UsageError, match="Only evaluations of the same examples"):
            judge(one, by_kind([True, False, True, True], kinds="abab"))


def test_groups_are_counted_by_the_p_value() -> None:
    before, after = evaluation([False] * 40), evaluation([True] * 40)
    grouped = [dataclasses.replace(each, groups=np.arange(40) // 10) for each in (before, after)]
    assert compare(before, after).p_value == pytest.approx(2 / 2**40)
    assert compare(*grouped).p_value == pytest.approx(2 / 2**4)
    assert compare(*grouped).ci95[0] <= 0
