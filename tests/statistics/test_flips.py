"""The sign flip test: exact where it can be, by whole groups always, and small where it should be."""

import itertools
import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from strop.statistics.flips import SIGNS, sign_flip_p_value


def by_trying_all(totals: list[float]) -> float:
    observed = abs(sum(totals)) - 1e-9
    signs = list(itertools.product((-1, 1), repeat=len(totals)))
    return sum(abs(sum(s * t for s, t in zip(turned, totals, strict=True))) >= observed for turned in signs) / len(
        signs
    )


@settings(max_examples=150, deadline=None)
@given(st.lists(st.integers(-6, 6), min_size=1, max_size=9))
def test_the_sum_of_whole_numbers_is_that_of_all_signs(totals: list[int]) -> None:
    expected = by_trying_all([float(total) for total in totals])
    assert sign_flip_p_value(np.array(totals, dtype=float), counts=True) == pytest.approx(expected, rel=1e-9)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-30, 30).map(lambda tenths: tenths / 10), min_size=1, max_size=9))
def test_few_groups_are_turned_in_every_way(totals: list[float]) -> None:
    assert sign_flip_p_value(np.array(totals), counts=False) == pytest.approx(by_trying_all(totals), abs=1e-12)


def test_many_groups_are_turned_at_random_but_the_same_way_for_a_seed() -> None:
    totals = np.random.default_rng(0).normal(0.25, 1, 60)
    found = sign_flip_p_value(totals, counts=False, seed=3)
    assert found == sign_flip_p_value(totals, counts=False, seed=3) != sign_flip_p_value(totals, counts=False, seed=4)
    standard = totals.sum() / math.sqrt((totals**2).sum())
    assert found == pytest.approx(2 * scipy.stats.norm.sf(abs(standard)), abs=0.015)


def test_what_no_random_signs_reach_is_not_said_to_be_impossible() -> None:
    assert sign_flip_p_value(np.linspace(1, 2, 50), counts=False) == 1 / (SIGNS + 1)


def test_groups_of_one_are_mcnemars_test_to_the_smallest_p() -> None:
    totals = np.array([1.0] * 150 + [-1.0] * 2 + [0.0] * 500)
    exact = 2 * (1 + 152 + 152 * 151 // 2) / 2**152
    assert sign_flip_p_value(totals, counts=True) == pytest.approx(exact, rel=1e-9)
    assert sign_flip_p_value(3 * totals, counts=True) == pytest.approx(exact, rel=1e-9)


def test_groups_of_several_sizes_give_the_smallest_p_too() -> None:
    totals = np.array([1.0] * 100 + [2.0] * 60)
    assert sign_flip_p_value(totals, counts=True) == pytest.approx(2 / 2**160, rel=1e-9)


def test_no_change_is_no_evidence() -> None:
    assert sign_flip_p_value(np.zeros(5), counts=True) == sign_flip_p_value(np.zeros(5), counts=False) == 1
    assert sign_flip_p_value(np.array([4.0, -4.0]), counts=True) == 1


def test_a_group_that_changes_as_one_is_one_observation() -> None:
    assert sign_flip_p_value(np.full(5, 10.0), counts=True) == pytest.approx(2 / 2**5)
    assert sign_flip_p_value(np.ones(50), counts=True) == pytest.approx(2 / 2**50)
