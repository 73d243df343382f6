"""Intervals of a paired difference that hold where examples come in groups, and where few of them change."""

import math
from collections.abc import Sequence

import numpy as np
import scipy.special

from strop.statistics.groups import Floats, GroupedMean, Indices, grouped_mean, number_groups, totals_of

LEVEL = 0.05
RESAMPLES = 10_000
FEWEST_TO_RESAMPLE = 10
"""Groups below which resampling them says too little of how skewed they are."""
FARTHEST = 3.0
"""Times what Student's interval reaches, the most that resampling adds."""
UNSEEN_GROUPS = 2.0
"""Groups that change as one, which count beside those seen to change: few changes tell little of whether more come together.
Where every group changed nothing is unseen, and they do not count."""

Interval = tuple[float, float]


def interval_to_json(interval: Interval) -> list[float | None]:
    """Return an interval as a file holds it, with null for a bound that is none.

    >>> interval_to_json((-math.inf, 0.5))
    [None, 0.5]
    """
    return [bound if math.isfinite(bound) else None for bound in interval]


def interval_from_json(bounds: Sequence[float | None]) -> Interval:
    """Return an interval a file holds, where null stands for no bound.

    >>> interval_from_json([None, 0.5])
    (-inf, 0.5)
    """
    low, high = bounds
    return -math.inf if low is None else low, math.inf if high is None else high


def critical_value(groups: float) -> float:
    """Return how many standard errors an interval of 95 % reaches: Student's t with one less than the effective number of groups.

    >>> [round(critical_value(groups), 2) for groups in (4, 40, 4000)]
    [3.18, 2.02, 1.96]
    """
    return math.inf if groups < 1 + 1e-9 else float(scipy.special.stdtrit(groups - 1, 1 - LEVEL / 2))


def score_interval(
    difference: Floats, groups: Indices | None = None, *, shares: Floats | None = None, strata: Indices | None = None
) -> Interval:
    """Return the 95 % interval of a mean of differences −1, 0 and 1: of answers fixed and broken.

    It holds every δ that Tango's score test (1998, doi:10.1002/(SICI)1097-0258(19980430)17:8<891::AID-SIM780>3.0.CO;2-B)
    does not refuse: |b − c − nδ| ≤ t √(n (2 q(δ) + δ (1 − δ))), with q(δ) the likeliest share of broken answers were δ the truth.
    Therefore it does not shrink to a point where nothing changed. b and c are the fixed and broken answers of as many independent
    examples as the groups are worth: n = N / deff with deff the ratio of the cluster-robust variance to that of
    independent examples (Kish, 1965; Rao and Scott, 1992, doi:10.2307/2532311), at least 1, and drawn towards that of groups
    that change as one where few groups change; t is Student's with one less than the effective number of groups.

    Args:
        difference: (examples,), −1, 0 or 1.
        groups: (examples,), the number of each example's group; None where each stands alone.
        shares: (examples,), of the mean's weight, adding up to 1; by default the same for all.
        strata: (examples,), kinds of examples that are given and not drawn, numbered from 0.

    >>> low, high = score_interval(np.zeros(60))
    >>> round(low, 3), round(high, 3)
    (-0.063, 0.063)
    """
    index = number_groups(groups, len(difference))
    shares = np.full(len(difference), 1 / len(difference)) if shares is None else shares
    found = grouped_mean(difference, index, shares=shares, strata=strata)
    fixed, broken = float(shares[difference > 0].sum()), float(shares[difference < 0].sum())
    critical = critical_value(found.effective_groups)
    if math.isinf(critical):
        return -1.0, 1.0
    changed = int((totals_of(np.abs(difference), index) > 0).sum())
    count = _independent_count(found, shares, changed, fixed + broken - (fixed - broken) ** 2)
    low, high = _score_limit(fixed, broken, count, critical), -_score_limit(broken, fixed, count, critical)
    return low, high


def _independent_count(found: GroupedMean, shares: Floats, changed: int, spread: float) -> float:
    """Return how many independent examples say as much.

    Args:
        found: the mean of differences.
        shares: of each example.
        changed: groups with a change.
        spread: variance of a single difference.
    """
    most, least = float((shares**2).sum()), 1 / found.effective_groups
    each = most  # 1 / n, were examples independent
    if spread > 1e-12:
        each = max(most, found.variance / spread * (1 - most))
    unseen = UNSEEN_GROUPS * (1 - changed / len(found.residuals))
    return (changed + unseen) / (changed * each + unseen * least)


def _score_limit(fixed: float, broken: float, count: float, critical: float) -> float:
    """Return the least difference of two shares that the score test does not refuse."""
    low, high = -1.0, fixed - broken
    for _ in range(45):  # to 1e-13
        middle = (low + high) / 2
        if _score(middle, fixed, broken, count) > critical:
            low = middle
        else:
            high = middle
    return low


def _score(difference: float, fixed: float, broken: float, count: float) -> float:
    """Return Tango's statistic: how many standard errors the gain lies above a difference."""
    a = 2.0
    b = -fixed - broken + (2 - fixed + broken) * difference
    c = -broken * difference * (1 - difference)
    share = (math.sqrt(max(b * b - 4 * a * c, 0.0)) - b) / (2 * a)
    variance = 2 * share + difference * (1 - difference)
    distance = fixed - broken - difference
    if variance <= 1e-15:
        return math.inf if distance > 0 else 0.0
    return distance * math.sqrt(count / variance)


def student_interval(found: GroupedMean) -> Interval:
    """Return the 95 % interval of t cluster-robust standard errors.

    t is Student's with one less than the effective number of groups.

    Args:
        found: a mean of values in groups.

    >>> low, high = student_interval(grouped_mean(np.array([0.0, 0.2, 0.4]), np.arange(3)))
    >>> round(low, 3), round(high, 3)
    (-0.297, 0.697)
    """
    critical = critical_value(found.effective_groups)
    if math.isinf(critical):
        return -math.inf, math.inf
    reach = critical * math.sqrt(found.variance)
    return found.mean - reach, found.mean + reach


def mean_interval(
    difference: Floats,
    groups: Indices | None = None,
    *,
    shares: Floats | None = None,
    strata: Indices | None = None,
    seed: int = 0,
) -> Interval:
    """Return the 95 % interval of a mean of differences that are numbers: of losses.

    The wider on either side of two: the gain plus or minus t cluster-robust standard errors, with t Student's of one less than
    the effective number of groups; and, with ten groups or more, the bootstrap-t interval (Efron, 1981; Hall, 1988,
    doi:10.1214/aos/1176350933) of 10,000 resamples of whole groups, which holds where differences are skewed; it reaches
    three times as far at most, as it has no end where one group makes all the difference. A single group says nothing of its
    error; its interval has no bounds.

    Args:
        difference: (examples,), any numbers.
        groups: (examples,), the number of each example's group; None where each stands alone.
        shares: (examples,), of the mean's weight, adding up to 1; by default the same for all.
        strata: (examples,), kinds of examples that are given and not drawn, numbered from 0.
        seed: of the resampling.

    >>> low, high = mean_interval(np.array([0.1, 0.2, 0.3, 0.4]))
    >>> round(low, 3), round(high, 3)
    (0.045, 0.455)
    """
    if not np.any(difference):
        return 0.0, 0.0  # not one loss is another's to the last bit: it is the same model
    found = grouped_mean(difference, number_groups(groups, len(difference)), shares=shares, strata=strata)
    low, high = student_interval(found)
    error = math.sqrt(found.variance)
    if len(found.residuals) >= FEWEST_TO_RESAMPLE and error > 0:
        least, most = np.quantile(_resampled_pivots(found, seed), [LEVEL / 2, 1 - LEVEL / 2])
        farthest = FARTHEST * (high - found.mean)
        low = min(low, found.mean - min(float(most) * error, farthest))
        high = max(high, found.mean + min(-float(least) * error, farthest))
    return low, high


def _resampled_pivots(found: GroupedMean, seed: int) -> Floats:
    """Return by how many of its own standard errors each resample's mean misses the mean."""
    generator = np.random.default_rng(seed)
    count = len(found.residuals)
    pivots = np.empty(RESAMPLES)
    step = max(1, 2_000_000 // count)
    for start in range(0, RESAMPLES, step):
        drawn = found.residuals[generator.integers(0, count, size=(min(step, RESAMPLES - start), count))]
        error = np.sqrt(count / (count - 1) * ((drawn - drawn.mean(1, keepdims=True)) ** 2).sum(1))
        missed = drawn.sum(1) - found.residuals.sum()
        pivots[start : start + step] = missed / np.maximum(error, 1e-9 * math.sqrt(found.variance))
    return pivots
