"""What is promised of tests and intervals, held against data sets drawn from known laws."""

import numpy as np
import pytest
from numpy.typing import NDArray

from strop.statistics import METRICS, compare_differences, compare_metric

Floats = NDArray[np.float64]


@pytest.fixture(autouse=True)
def fewer_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Resample 1,000 times and not 10,000, as the data sets are many."""
    for module in ("comparison", "intervals"):
        monkeypatch.setattr(f"strop.statistics.{module}.RESAMPLES", 1000)


def answers(
    generator: np.random.Generator, sets: int, groups: int, size: int, *, rate: float, fixed: float, correlation: float
) -> Floats:
    """Draw what changed on the answers of many data sets, (sets, groups, size): −1, 0 or 1.

    Each of two answers of a group is, with chance √correlation, what its whole group does.

    Args:
        generator: of random numbers.
        sets: data sets.
        groups: in each.
        size: of each group.
        rate: share of answers that change.
        fixed: share of these that are fixed and not broken.
        correlation: of what changed on two answers of a group.
    """

    def drawn(count: int) -> Floats:
        change = generator.random((sets, groups, count)) < rate
        return change * np.where(generator.random((sets, groups, count)) < fixed, 1.0, -1.0)

    alike = generator.random((sets, groups, size)) < correlation**0.5
    return np.where(alike, drawn(1), drawn(size))


def losses(generator: np.random.Generator, sets: int, groups: int, size: int, correlation: float) -> Floats:
    """Draw falls of losses around 0, of normal law, (sets, groups, size)."""
    own, shared = generator.normal(size=(sets, groups, size)), generator.normal(size=(sets, groups, 1))
    return (1 - correlation) ** 0.5 * own + correlation**0.5 * shared


def test_answers_drawn_are_correlated_as_asked() -> None:
    drawn = answers(np.random.default_rng(0), 50, 200, 2, rate=0.3, fixed=0.7, correlation=0.4)
    assert np.corrcoef(drawn[..., 0].ravel(), drawn[..., 1].ravel())[0, 1] == pytest.approx(0.4, abs=0.04)
    assert (drawn.mean(), np.abs(drawn).mean()) == pytest.approx((0.12, 0.3), abs=0.01)


GROUPS = np.repeat(np.arange(200), 10)


@pytest.mark.parametrize("correlation", [0.3, 0.45, 0.6])
def test_where_nothing_was_gained_one_in_twenty_data_sets_says_otherwise(correlation: float) -> None:
    drawn = answers(np.random.default_rng(11), 300, 200, 10, rate=0.2, fixed=0.5, correlation=correlation)
    found = [compare_differences(each.ravel(), groups=GROUPS, right_or_wrong=True) for each in drawn]
    assert 0.03 <= np.mean([each.p_value < 0.05 for each in found]) <= 0.07
    blind = [compare_differences(each.ravel(), groups=None, right_or_wrong=True) for each in drawn[:100]]
    assert np.mean([each.p_value < 0.05 for each in blind]) > 0.25


@pytest.mark.parametrize("candidates", [1, 200])
def test_however_many_candidates_select_looks_at_test_owes_them_nothing(candidates: int) -> None:
    """Candidates that change answers at random: the best of them gains on select by choice alone, and on test by none."""
    generator = np.random.default_rng(3)
    on_select, claims = [], []
    for _ in range(300):
        select, test = (
            generator.choice([-1.0, 0.0, 1.0], size=(candidates, size), p=[0.1, 0.8, 0.1]) for size in (100, 300)
        )
        best = int(np.argmax(select.sum(1)))
        on_select.append(select[best].mean())
        claims.append(compare_differences(test[best], groups=None, right_or_wrong=True).p_value < 0.05)
    assert (np.mean(on_select) > 0.09) == (candidates > 1)
    assert 0.02 <= np.mean(claims) <= 0.07


def test_losses_that_did_not_fall_say_so_nineteen_times_in_twenty() -> None:
    drawn = losses(np.random.default_rng(5), 300, 12, 10, 0.5)
    found = [compare_differences(each.ravel(), groups=GROUPS[:120], right_or_wrong=False) for each in drawn]
    assert 0.03 <= np.mean([each.p_value < 0.05 for each in found]) <= 0.07


@pytest.mark.parametrize(
    ("groups", "size", "rate", "fixed", "correlation"),
    [
        (40, 1, 0.01, 1.0, 0),
        (60, 1, 0.03, 1.0, 0),
        (60, 1, 0.3, 0.75, 0),
        (200, 1, 0.05, 1.0, 0),
        (2000, 1, 0.01, 0.5, 0),
        (4, 10, 0.3, 1.0, 0.6),
        (8, 5, 0.1, 1.0, 0.6),
        (30, 2, 0.1, 0.75, 0.6),
        (50, 4, 0.03, 1.0, 0.6),
        (20, 10, 0.3, 1.0, 0.3),
        (200, 10, 0.02, 1.0, 0.6),
        (200, 10, 0.2, 0.75, 0.45),
    ],
)
def test_intervals_hold_the_truth(groups: int, size: int, rate: float, fixed: float, correlation: float) -> None:
    generator = np.random.default_rng(groups + size)
    drawn = answers(generator, 300, groups, size, rate=rate, fixed=fixed, correlation=correlation)
    truth = rate * (2 * fixed - 1)
    index = np.repeat(np.arange(groups), size) if size > 1 else None
    found = [compare_differences(each.ravel(), groups=index, right_or_wrong=True) for each in drawn]
    bounds = np.array([each.ci95 for each in found])
    assert np.mean((bounds[:, 0] <= truth) & (truth <= bounds[:, 1])) >= 0.93
    assert np.mean(bounds[:, 1] - bounds[:, 0]) < 2  # it says something, even of four groups


@pytest.mark.parametrize(("groups", "size"), [(40, 1), (20, 5)])
def test_intervals_of_skewed_losses_hold_the_truth(groups: int, size: int) -> None:
    drawn = np.exp(0.7 * losses(np.random.default_rng(1), 300, groups, size, 0.5))
    index = np.repeat(np.arange(groups), size)
    found = [compare_differences(each.ravel(), groups=index, right_or_wrong=False) for each in drawn]
    bounds = np.array([each.ci95 for each in found])
    assert np.mean((bounds[:, 0] <= np.exp(0.245)) & (np.exp(0.245) <= bounds[:, 1])) >= 0.93


@pytest.mark.parametrize("rate", [0.05, 0.3])
def test_intervals_of_other_metrics_hold_the_truth(rate: float) -> None:
    """Matthews correlation of a base that is right on 70 % of labels; so many of its errors are mended."""

    def labelled(generator: np.random.Generator, count: int) -> tuple[Floats, Floats, Floats]:
        actual = (generator.random(count) < 0.3).astype(float)
        before = np.where(generator.random(count) < 0.7, actual, 1 - actual)
        return actual, before, np.where(generator.random(count) < rate, actual, before)

    def matthews(actual: Floats, predicted: Floats) -> float:
        return float(METRICS["matthews"].value(METRICS["matthews"].addends(actual, predicted, 2).sum(0)))

    generator = np.random.default_rng(0)
    actual, before, after = labelled(generator, 400_000)
    truth = matthews(actual, after) - matthews(actual, before)
    held = []
    for _ in range(50):
        actual, before, after = labelled(generator, 60)
        low, high = compare_metric(
            "matthews",
            actual,
            (before, after),
            (after == actual) * 1.0 - (before == actual),
            label_count=2,
            values=(matthews(actual, before), matthews(actual, after)),
            groups=None,
        ).ci95
        held.append(low <= truth <= high)
    assert np.mean(held) >= 0.93
