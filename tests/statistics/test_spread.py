"""The spread of a gain: figures by category, an average over them that small ones count in, and a sentence."""

import json
import math

import numpy as np
import pytest

from strop.errors import UsageError
from strop.statistics import Spread, compare_differences, spread_of
from strop.statistics.intervals import score_interval


def of_counts(**categories: tuple[int, int, int, int]) -> Spread:
    """Return the spread over categories of so many answers fixed, broken, right before and after, and wrong."""
    base, edited, names = [], [], []
    for name, (fixed, broken, right, wrong) in categories.items():
        base += [0] * fixed + [1] * broken + [1] * right + [0] * wrong
        edited += [1] * fixed + [0] * broken + [1] * right + [0] * wrong
        names += [name] * (fixed + broken + right + wrong)
    order = np.random.default_rng(0).permutation(len(names))
    return spread_of(np.array(base)[order], np.array(edited)[order], categories=[names[index] for index in order])


LASER_LIKE = of_counts(
    city=(60, 0, 2, 40), metal=(0, 12, 20, 20), river=(1, 3, 5, 91), king=(2, 2, 3, 3), sea=(0, 0, 1, 9)
)


def test_each_category_has_its_own_comparison() -> None:
    metal = next(each for each in LASER_LIKE.categories if each.name == "metal")
    assert (metal.count, metal.fixed, metal.broken) == (52, 0, 12)
    assert (metal.base, metal.edited, metal.gain) == pytest.approx((32 / 52, 20 / 52, -12 / 52))
    alone = compare_differences(np.array([-1.0] * 12 + [0.0] * 40), groups=None, right_or_wrong=True)
    assert metal.ci95 == alone.ci95
    assert metal.surely_falls


def test_what_adds_most_comes_first_and_the_sum_is_the_gain() -> None:
    assert [each.name for each in LASER_LIKE.categories] == ["city", "king", "sea", "river", "metal"]
    assert LASER_LIKE.count == 274
    assert LASER_LIKE.gain == pytest.approx((63 - 17) / 274)


def test_the_sentence_says_where_the_gain_is_and_what_falls() -> None:
    assert (LASER_LIKE.holding_most, LASER_LIKE.falling, LASER_LIKE.surely_falling) == (1, 2, 1)
    assert LASER_LIKE.sentence == ("Most of the gain is in 1 of 5 categories (city); 2 fall (1 beyond its interval).")
    even = of_counts(a=(10, 0, 0, 10), b=(10, 0, 0, 10), c=(10, 0, 0, 10))
    assert even.sentence == "Most of the gain is in 2 of 3 categories; none falls."
    fallen = of_counts(a=(0, 1, 5, 0), b=(0, 0, 5, 0))
    assert fallen.sentence == "None of 2 categories gains; 1 falls."
    lost = of_counts(a=(1, 0, 0, 5), b=(0, 4, 5, 0))
    assert lost.sentence == "1 of 2 categories gains no more than others lose; 1 falls."
    even_out = of_counts(city=(2, 0, 0, 5), metal=(0, 2, 5, 0))
    assert even_out.sentence == "1 of 2 categories gains no more than others lose; 1 falls."
    assert of_counts(a=(3, 0, 0, 1)).sentence == "Most of the gain is in 1 of 1 category; none falls."


def test_every_category_counts_the_same_in_the_average() -> None:
    found = of_counts(large=(500, 0, 0, 500), small=(0, 2, 8, 0))
    assert found.macro_gain == pytest.approx((0.5 - 0.2) / 2)
    assert (found.macro_base, found.macro_edited) == pytest.approx((0.5, 0.65))
    assert found.gain == pytest.approx(498 / 1010)
    low, high = found.macro_ci95
    assert low < found.macro_gain < high
    assert high - low > 4 * (found.categories[0].ci95[1] - found.categories[0].ci95[0])  # ten answers decide half of it


def test_the_averages_interval_holds_the_truth_nineteen_times_in_twenty() -> None:
    generator = np.random.default_rng(2)
    sizes, rates = np.array([200, 100, 40, 40, 20]), np.array([0.02, 0.3, 0.05, 0.1, 0.2])
    strata = np.repeat(np.arange(5), sizes)
    drawn = (generator.random((500, 400)) < rates[strata]).astype(float)
    bounds = np.array([score_interval(each, shares=1 / (5 * sizes[strata]), strata=strata) for each in drawn])
    assert np.mean((bounds[:, 0] <= rates.mean()) & (rates.mean() <= bounds[:, 1])) >= 0.93
    assert spread_of(np.zeros(400), drawn[0], categories=[f"c{number}" for number in strata]).macro_ci95 == tuple(
        bounds[0]
    )


def test_a_gain_in_one_category_is_not_sure_in_others_of_the_kind() -> None:
    names = [f"c{number}" for number in range(10) for _ in range(50)]
    one = spread_of(np.zeros(500), np.array([1] * 50 + [0] * 450), categories=names)
    all_alike = spread_of(np.zeros(500), np.array(([1] * 5 + [0] * 45) * 10), categories=names)
    assert one.gain == all_alike.gain == pytest.approx(0.1)
    assert one.ci95_categories[0] < 0
    assert all_alike.ci95_categories[0] > 0.03
    assert of_counts(only=(5, 0, 0, 5)).ci95_categories == (-1, 1)


def test_groups_across_categories_are_still_one_observation() -> None:
    """A fact and its reverse, in two relations, share a group."""
    generator = np.random.default_rng(0)
    change = (generator.random(100) < 0.3).astype(float)
    names = ["capital of"] * 100 + ["has capital"] * 100
    both = np.concatenate([change, change])
    apart = spread_of(np.zeros(200), both, categories=names)
    tied = spread_of(np.zeros(200), both, categories=names, groups=np.tile(np.arange(100), 2))
    width = [found.macro_ci95[1] - found.macro_ci95[0] for found in (apart, tied)]
    assert width[1] == pytest.approx(math.sqrt(2) * width[0], rel=0.1)


def test_losses_gain_where_they_fall() -> None:
    generator = np.random.default_rng(0)
    base = generator.normal(3, 1, 60)
    edited = base - np.repeat([0.5, -0.2, 0.0], 20) - generator.normal(0, 0.1, 60)
    found = spread_of(base, edited, categories=["a"] * 20 + ["b"] * 20 + [None] * 20, measure="loss")
    assert [each.name for each in found.categories] == ["a", "other", "b"]
    assert found.categories[0].gain == pytest.approx((base - edited)[:20].mean())
    assert found.categories[2].surely_falls
    assert found.macro_gain == pytest.approx((base - edited).mean())
    assert found.macro_ci95[1] - found.macro_ci95[0] < 0.12  # what sets categories apart is no error of their average
    assert found.ci95_categories[1] - found.ci95_categories[0] > 1  # but of what other categories would show


def test_a_spread_survives_a_file() -> None:
    for found in (LASER_LIKE, spread_of(np.array([1.5]), np.array([1.0]), categories=[""], measure="loss")):
        content = json.loads(json.dumps(found.to_json(), allow_nan=False))
        assert Spread.from_json(content) == found
    assert LASER_LIKE.macro_to_json()["sentence"] == LASER_LIKE.sentence


def test_other_counts_of_categories_are_refused() -> None:
    with pytest.raises(UsageError, match="not 3 for 2 and 2"):
        spread_of(np.zeros(2), np.ones(2), categories=["a", "b", "c"])
    with pytest.raises(UsageError, match="one category or more"):
        Spread("accuracy", (), 0, 0, 0, (0, 0), (0, 0))
