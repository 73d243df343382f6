"""A comparison: whatever changed, in whatever groups, its interval and its p-value say one thing."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strop.statistics import Comparison, compare_differences, compare_metric
from strop.statistics.comparison import agreeing


def assert_of_one_mind(found: Comparison) -> None:
    low, high = found.ci95
    assert (found.p_value < 0.05) == (low > 0 or high < 0)
    assert low <= found.gain <= high
    assert 0 < found.p_value <= 1


def in_groups(draw_from: st.SearchStrategy[float]) -> st.SearchStrategy[tuple[list[float], list[int]]]:
    """Groups of one to eight examples, many of which change alike."""
    group = st.tuples(draw_from, st.integers(1, 8), st.integers(0, 2))
    return st.lists(group, min_size=1, max_size=40).map(
        lambda groups: (
            [value if rest == 0 or n % rest == 0 else 0.0 for value, size, rest in groups for n in range(size)],
            [number for number, (_, size, _) in enumerate(groups) for _ in range(size)],
        )
    )


@settings(max_examples=150, deadline=None)
@given(in_groups(st.sampled_from([-1.0, 0.0, 0.0, 1.0, 1.0])))
def test_right_and_wrong_answers_in_groups(drawn: tuple[list[float], list[int]]) -> None:
    difference, groups = (np.array(part) for part in drawn)
    assert_of_one_mind(compare_differences(difference, groups=groups, right_or_wrong=True))


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 400))
def test_right_and_wrong_answers_alone(fixed: int, broken: int, same: int) -> None:
    difference = np.array([1.0] * fixed + [-1.0] * broken + [0.0] * (same + 1))
    found = compare_differences(difference, groups=None, right_or_wrong=True)
    assert_of_one_mind(found)
    assert found.ci95[0] < found.ci95[1]


@settings(max_examples=40, deadline=None)
@given(in_groups(st.sampled_from([-1.3, -0.2, 0.1, 0.4, 0.8, 3.0])))
def test_losses_in_groups(drawn: tuple[list[float], list[int]]) -> None:
    difference, groups = (np.array(part) for part in drawn)
    assert_of_one_mind(compare_differences(difference, groups=groups, right_or_wrong=False))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(["f1", "matthews", "pearson"]), st.sampled_from([None, 4, 48]))
def test_other_metrics(seed: int, name: str, size: int | None) -> None:
    generator = np.random.default_rng(seed)
    actual = generator.integers(0, 2, 48).astype(float)
    before = np.where(generator.random(48) < 0.5, actual, 1 - actual)
    after = np.where(generator.random(48) < generator.random(), actual, before)
    found = compare_metric(
        name,
        actual,
        (before, after),
        (after == actual) * 1.0 - (before == actual),
        label_count=2,
        values=(0.0, float(generator.normal(0.2, 0.1))),
        groups=None if size is None else np.arange(48) // size,
    )
    assert_of_one_mind(found)


@given(
    st.floats(-1, 1), st.floats(0, 1), st.floats(0, 1), st.one_of(st.floats(1e-12, 1), st.sampled_from([0.05, 0.04999]))
)
def test_each_becomes_the_more_cautious(gain: float, below: float, above: float, p_value: float) -> None:
    interval = (gain - below, gain + above)
    (low, high), p = agreeing(gain, interval, p_value)
    assert low <= interval[0]
    assert high >= interval[1]
    assert p >= p_value
    assert (p < 0.05) == (low > 0 or high < 0)


def test_what_agrees_is_left_alone() -> None:
    assert agreeing(0.2, (0.1, 0.3), 0.01) == ((0.1, 0.3), 0.01)
    assert agreeing(0.2, (-0.1, 0.3), 0.2) == ((-0.1, 0.3), 0.2)


def test_groups_count_as_one_observation_each() -> None:
    """Five groups of ten answers fixed are no more than five observations."""
    difference = np.array([1.0] * 50 + [0.0] * 150)
    alone = compare_differences(difference, groups=None, right_or_wrong=True)
    grouped = compare_differences(difference, groups=np.arange(200) // 10, right_or_wrong=True)
    assert alone.p_value < 1e-14
    assert grouped.p_value == pytest.approx(2 / 2**5)
    assert grouped.ci95[0] == 0
    assert (grouped.gain, grouped.fixed, grouped.broken) == (alone.gain, alone.fixed, alone.broken)


def test_no_change_has_an_interval_all_the_same() -> None:
    found = compare_differences(np.zeros(60), groups=None, right_or_wrong=True)
    assert (found.gain, found.p_value) == (0, 1)
    assert found.ci95 == pytest.approx((-0.0626, 0.0626), abs=1e-3)


def test_a_bound_that_is_none_is_null_in_a_file() -> None:
    found = compare_differences(np.array([0.5, 0.1]), groups=np.array([0, 0]), right_or_wrong=False)
    assert found.ci95 == (-math.inf, math.inf)
    content = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert content["ci95"] == [None, None]
    assert Comparison.from_json(content) == found


def test_of_a_loss_that_is_not_finite_nothing_is_claimed() -> None:
    difference = np.linspace(0.1, 1.0, 40)
    difference[7] = np.nan
    found = compare_differences(difference, groups=None, right_or_wrong=False)
    assert (found.p_value, found.ci95) == (1.0, (-math.inf, math.inf))
    assert found.verdict == "No gain is shown: the interval holds 0."
    again = Comparison.from_json({**found.to_json(), "gain": None})
    assert math.isnan(again.gain)
    assert again.ci95 == found.ci95
