"""Intervals: Tango's published figures, and what groups, few changes and skewed losses do to them."""

import math

import numpy as np
import pytest
import scipy.stats

from strop.statistics.groups import grouped_mean, number_groups
from strop.statistics.intervals import critical_value, mean_interval, score_interval


def changes(*, fixed: int, broken: int, same: int) -> np.ndarray:
    return np.array([1.0] * fixed + [-1.0] * broken + [0.0] * same)


def width(interval: tuple[float, float]) -> float:
    return interval[1] - interval[0]


def test_the_interval_is_tangos(monkeypatch: pytest.MonkeyPatch) -> None:
    """A table of Bentur et al. (2009) with its interval in Fagerland et al. (2014, doi:10.1002/sim.6148)."""
    monkeypatch.setattr("strop.statistics.intervals.critical_value", lambda groups: 1.959964)
    assert score_interval(changes(fixed=7, broken=1, same=13)) == pytest.approx((0.026, 0.517), abs=5e-4)
    assert score_interval(changes(fixed=1, broken=7, same=13)) == pytest.approx((-0.517, -0.026), abs=5e-4)


def test_each_bound_is_where_the_score_test_turns() -> None:
    """At the null of no difference, Tango's statistic is McNemar's (b − c)/√(b + c)."""
    just = score_interval(changes(fixed=100, broken=73, same=827))
    more = score_interval(changes(fixed=100, broken=75, same=825))
    assert (100 - 73) / math.sqrt(173) > critical_value(1000) > (100 - 75) / math.sqrt(175)
    assert just[0] > 0 > more[0]


@pytest.mark.parametrize("count", [10, 60, 1000])
def test_no_change_leaves_as_much_open_as_the_examples_are_few(count: int) -> None:
    t = critical_value(count)
    bound = t**2 / (count + t**2)
    assert score_interval(np.zeros(count)) == pytest.approx((-bound, bound), rel=1e-6)


def test_every_answer_fixed_is_not_certain_either() -> None:
    low, high = score_interval(np.ones(50))
    assert 0.85 < low < 0.95
    assert high == pytest.approx(1)


def test_many_examples_have_the_interval_of_the_normal_law() -> None:
    difference = changes(fixed=400, broken=100, same=1500)
    spread = 1.96 * difference.std() / math.sqrt(2000)
    assert score_interval(difference) == pytest.approx((0.15 - spread, 0.15 + spread), abs=0.0015)


def test_copies_within_a_group_narrow_nothing() -> None:
    difference = changes(fixed=24, broken=8, same=48)
    alone, copied = score_interval(difference), score_interval(np.repeat(difference, 20), np.repeat(np.arange(80), 20))
    assert copied == pytest.approx(alone, abs=0.004)
    losses = np.random.default_rng(0).normal(0.2, 1, 80)
    assert mean_interval(np.repeat(losses, 20), np.repeat(np.arange(80), 20)) == pytest.approx(
        mean_interval(losses), abs=1e-9
    )


def test_groups_without_anything_in_common_cost_little() -> None:
    difference = np.random.default_rng(1).permutation(changes(fixed=300, broken=100, same=1600))
    grouped = score_interval(difference, np.arange(2000) // 10)
    assert 1 <= width(grouped) / width(score_interval(difference)) < 1.2


def test_few_changes_are_not_taken_for_independent() -> None:
    """Two groups of ten in which one answer changed say little of whether a group changes as one."""
    difference = np.zeros(400)
    difference[[5, 125]] = 1
    alone, grouped = score_interval(difference), score_interval(difference, np.arange(400) // 10)
    assert width(grouped) > 1.8 * width(alone)


def test_a_single_group_says_nothing() -> None:
    assert score_interval(np.array([1.0, 0.0, 1.0]), np.zeros(3, dtype=np.int64)) == (-1, 1)
    assert mean_interval(np.array([0.5, 0.2]), np.zeros(2, dtype=np.int64)) == (-math.inf, math.inf)


@pytest.mark.parametrize("groups", [2, 3, 4, 8])
def test_few_groups_have_students_interval(groups: int) -> None:
    losses = np.random.default_rng(groups).normal(0.3, 1, groups)
    expected = scipy.stats.ttest_1samp(losses, 0).confidence_interval()
    assert mean_interval(losses) == pytest.approx((expected.low, expected.high))


def test_skewed_losses_reach_further_where_their_tail_is() -> None:
    losses = np.random.default_rng(0).lognormal(0, 1, 40)
    low, high = mean_interval(losses)
    assert high - losses.mean() > 1.3 * (losses.mean() - low)


def test_names_of_groups_do_not_matter() -> None:
    difference = np.random.default_rng(0).integers(-1, 2, 60).astype(float)
    groups = np.arange(60) // 4
    assert score_interval(difference, groups) == score_interval(difference, 1000 - 7 * groups)
    assert number_groups(np.array([5, 5, -2]), 3).tolist() == [1, 1, 0]


def test_given_strata_take_out_what_sets_them_apart() -> None:
    strata = np.arange(200) % 2
    values = strata + np.random.default_rng(0).normal(0, 0.1, 200)
    index = np.arange(200)
    plain, within = (grouped_mean(values, index, strata=own) for own in (None, strata))
    assert within.mean == pytest.approx(plain.mean)
    assert within.variance == pytest.approx(0.1**2 / 200, rel=0.25)
    assert plain.variance == pytest.approx(0.26 / 200, rel=0.1)
