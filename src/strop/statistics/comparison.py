"""Two models on the same examples, paired: the gain, its interval, and how surely it is none by chance."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import scipy.stats
from numpy.typing import NDArray

from strop.statistics.metrics import METRICS, Floats

RESAMPLES = 10_000


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What an edit changed on the same examples."""

    gain: float
    """Edited minus base accuracy, as a fraction; for `label`, of the task's metric; for `perplexity`, base minus edited mean
    loss, in nats per token."""
    ci95: tuple[float, float]
    """Percentile bootstrap over groups of examples."""
    p_value: float
    """Two-sided: McNemar's exact test; for `perplexity`, Wilcoxon's signed ranks; for other metrics than accuracy, a paired
    permutation test."""
    fixed: int
    """Examples wrong before and right after; for `perplexity` and for numbers, those whose loss fell."""
    broken: int
    """Examples right before and wrong after; for `perplexity` and for numbers, those whose loss rose."""

    def to_json(self) -> dict[str, Any]:
        """Return what a result file holds."""
        return {**dataclasses.asdict(self), "ci95": list(self.ci95)}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Comparison":
        """Return the comparison a result file holds.

        Raises:
            KeyError: a field is missing.
        """
        low, high = content["ci95"]
        fields = {field.name: content[field.name] for field in dataclasses.fields(cls)}
        return cls(**{**fields, "ci95": (low, high)})


def compare_differences(
    difference: Floats, *, groups: NDArray[np.int64] | None, right_or_wrong: bool, seed: int = 0
) -> Comparison:
    """Compare two models by what changed on each example.

    p = P(min(fixed, broken) or fewer of fixed + broken tosses of a fair coin), two-sided (McNemar, 1947, exact form), or
    Wilcoxon's signed ranks where differences are of losses; the interval is the 2.5 % and 97.5 % point of the mean
    difference over 10,000 resamples of whole groups.

    Args:
        difference: (examples,), edited minus base: −1, 0 or 1 where answers are right or wrong; base minus edited loss.
        groups: (examples,), the number of each example's group; None where each stands alone.
        right_or_wrong: the differences are of answers that are right or wrong; else of losses.
        seed: of the resampling.

    >>> found = compare_differences(np.array([1.0, 1.0, 0.0, -1.0]), groups=None, right_or_wrong=True)
    >>> found.gain, found.fixed, found.broken
    (0.25, 2, 1)
    """
    fixed, broken = int((difference > 0).sum()), int((difference < 0).sum())
    return Comparison(
        gain=float(difference.mean()),
        ci95=_bootstrap(difference, groups, seed),
        p_value=_p_value(difference, fixed, broken, counts=right_or_wrong),
        fixed=fixed,
        broken=broken,
    )


def compare_metric(
    name: str,
    actual: Floats,
    predictions: tuple[Floats, Floats],
    difference: Floats,
    *,
    label_count: int,
    values: tuple[float, float],
    groups: NDArray[np.int64] | None,
    seed: int = 0,
) -> Comparison:
    """Compare two classifiers by a metric that is a function of sums over examples.

    The interval is that of the metric's difference over 10,000 resamples of whole groups, and p the share of as many
    exchanges, of the two models' predictions in half of the groups, that move the metric as far.

    Args:
        name: one of `METRICS`.
        actual: (examples,), the right labels' indices, or the right numbers.
        predictions: of the base and of the edited model, (examples,) each.
        difference: (examples,), what changed on each example, for the counts of fixed and broken ones.
        label_count: how many labels there are; 1 for a number.
        values: of the metric, for the base and for the edited model.
        groups: (examples,), the number of each example's group; None where each stands alone.
        seed: of the resampling.
    """
    fixed, broken = int((difference > 0).sum()), int((difference < 0).sum())
    gain = values[1] - values[0]
    value = METRICS[name].value
    each = np.concatenate([METRICS[name].addends(actual, own, label_count) for own in predictions], axis=1)
    kinds, counts = _kinds_of_groups(each, groups)
    half = kinds.shape[1] // 2
    generator = np.random.default_rng(seed)
    gains, exchanged = np.empty(RESAMPLES), np.empty(RESAMPLES)
    turned = np.concatenate([kinds[:, half:], kinds[:, :half]], axis=1)
    for start, stop in _steps(len(counts)):
        drawn = generator.multinomial(counts.sum(), counts / counts.sum(), size=stop - start) @ kinds
        gains[start:stop] = value(drawn[:, half:]) - value(drawn[:, :half])
        kept = generator.binomial(counts, 0.5, size=(stop - start, len(counts)))
        mixed = kept @ kinds + (counts - kept) @ turned
        exchanged[start:stop] = value(mixed[:, half:]) - value(mixed[:, :half])
    low, high = np.quantile(gains, [0.025, 0.975])
    as_far = int((np.abs(exchanged) >= abs(gain) - 1e-12).sum())
    return Comparison(gain, (float(low), float(high)), (1 + as_far) / (1 + RESAMPLES), fixed, broken)


def _kinds_of_groups(each: Floats, groups: NDArray[np.int64] | None) -> tuple[Floats, NDArray[np.int64]]:
    """Return what groups of examples add to the metric's sums of both models, each kind of group once, and how many."""
    index = np.arange(len(each)) if groups is None else groups
    sums = np.zeros((int(index.max()) + 1, each.shape[1]))
    np.add.at(sums, index, each)
    kinds, counts = np.unique(sums[np.bincount(index) > 0], axis=0, return_counts=True)
    return kinds, counts


def _steps(kinds: int) -> list[tuple[int, int]]:
    """Return the resamples a few at a time, so that not too much of memory is held."""
    step = max(1, 2_000_000 // kinds)
    return [(start, min(start + step, RESAMPLES)) for start in range(0, RESAMPLES, step)]


def _p_value(difference: NDArray[np.float64], fixed: int, broken: int, *, counts: bool) -> float:
    if fixed + broken == 0:
        return 1.0
    if counts:
        return float(scipy.stats.binomtest(min(fixed, broken), fixed + broken, 0.5).pvalue)
    return float(scipy.stats.wilcoxon(difference).pvalue)


def _bootstrap(difference: NDArray[np.float64], groups: NDArray[np.int64] | None, seed: int) -> tuple[float, float]:
    """Resample whole groups of examples: those of one group are no independent evidence."""
    generator = np.random.default_rng(seed)
    index = np.arange(len(difference)) if groups is None else groups
    totals = np.bincount(index, weights=difference)
    sizes = np.bincount(index)
    kinds, counts = np.unique(np.stack([totals[sizes > 0], sizes[sizes > 0]]), axis=1, return_counts=True)
    group_count = int(counts.sum())
    means = np.empty(RESAMPLES)
    for start, stop in _steps(counts.shape[0]):  # resampling groups of few kinds is one multinomial draw
        drawn = generator.multinomial(group_count, counts / group_count, size=stop - start)
        means[start:stop] = (drawn @ kinds[0]) / (drawn @ kinds[1])
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def spell_p_value(p_value: float) -> str:
    """Return what a test says; where the number is too small for the machine, how small it is at most.

    >>> spell_p_value(0.04), spell_p_value(7.6e-41), spell_p_value(0.0)
    ('p = 0.040', 'p = 7.6e-41', 'p < 1e-300')
    """
    if p_value < 1e-300:
        return "p < 1e-300"
    return f"p = {p_value:.3f}" if p_value >= 0.001 else f"p = {p_value:.1e}"
