"""Two models on the same examples, paired: the gain, its interval, and how surely it is none by chance."""

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import scipy.special

from strop.files import write_json
from strop.statistics.flips import sign_flip_p_value
from strop.statistics.groups import Floats, Indices, grouped_mean, number_groups, totals_of
from strop.statistics.intervals import (
    LEVEL,
    RESAMPLES,
    Interval,
    critical_value,
    interval_from_json,
    interval_to_json,
    mean_interval,
    score_interval,
)
from strop.statistics.metrics import METRICS
from strop.tables import Table, data_frame, to_html


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What an edit changed on the same examples; p < 0.05 exactly where the interval leaves out 0."""

    gain: float
    """Edited minus base accuracy, as a fraction; for `label`, of the task's metric; for `perplexity`, base minus edited mean
    loss, in nats per token."""
    ci95: Interval
    """Tango's score interval for right and wrong answers, t and bootstrap-t for losses, a bootstrap for other metrics than
    accuracy; each counts groups of examples, and holds 0 where the test does not refuse it."""
    p_value: float
    """Two-sided, by turning whole groups: exact for right and wrong answers (McNemar's test where each example is a group),
    sign flips for `perplexity`, a paired permutation test for other metrics than accuracy."""
    fixed: int
    """Examples wrong before and right after; for `perplexity` and for numbers, those whose loss fell."""
    broken: int
    """Examples right before and wrong after; for `perplexity` and for numbers, those whose loss rose."""

    @property
    def verdict(self) -> str:
        """What may not be claimed of it; empty where the gain is beyond chance, or nothing was edited.

        >>> Comparison(gain=0.01, ci95=(-0.02, 0.04), p_value=0.6, fixed=9, broken=7).verdict
        'No gain is shown: the interval holds 0.'
        """
        low, high = self.ci95
        if low > 0 or low == high == 0:
            return ""
        return "It is worse than before." if high < 0 else "No gain is shown: the interval holds 0."

    def save(self, path: str | Path) -> Path:
        """Write it as a JSON file, and return its path.

        Args:
            path: of the file.
        """
        write_json(Path(path), self.to_json())
        return Path(path)

    def to_pandas(self) -> Any:
        """Return it as a `pandas.DataFrame` of one row.

        Raises:
            UsageError: pandas is not installed.
        """
        low, high = self.ci95
        own = {"gain": self.gain, "ci95_low": low, "ci95_high": high, "p_value": self.p_value}
        return data_frame([{**own, "fixed": self.fixed, "broken": self.broken}])

    def _repr_html_(self) -> str:
        low, high = self.ci95
        columns = ("gain", "95 % interval", "p", "fixed", "broken")
        cells = (
            f"{self.gain:+.4f}",
            f"{low:+.4f} to {high:+.4f}",
            f"{self.p_value:.2g}",
            str(self.fixed),
            str(self.broken),
        )
        return to_html(Table("", columns, (cells,)), *([self.verdict] if self.verdict else []))

    def to_json(self) -> dict[str, Any]:
        """Return what a result file holds, with null for a bound that is none."""
        return {**dataclasses.asdict(self), "ci95": interval_to_json(self.ci95)}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Comparison":
        """Return the comparison a result file holds.

        Raises:
            KeyError: a field is missing.
        """
        fields = {field.name: content[field.name] for field in dataclasses.fields(cls)}
        gain = math.nan if fields["gain"] is None else fields["gain"]
        return cls(**{**fields, "gain": gain, "ci95": interval_from_json(content["ci95"])})


def compare_differences(
    difference: Floats, *, groups: Indices | None, right_or_wrong: bool, seed: int = 0
) -> Comparison:
    """Compare two models by what changed on each example.

    p = P(|Σ_g ε_g D_g| ≥ |Σ_g D_g|) over random signs ε_g of the groups' totals D_g (see `sign_flip_p_value`); for right and
    wrong answers without groups this is McNemar's exact test. The interval is `score_interval` of right and wrong answers,
    `mean_interval` of losses. Both are made to agree by `agreeing`.

    Args:
        difference: (examples,), edited minus base: −1, 0 or 1 where answers are right or wrong; base minus edited loss.
        groups: (examples,), the number of each example's group; None where each stands alone.
        right_or_wrong: the differences are of answers that are right or wrong; else of losses.
        seed: of random signs and resamples of losses.

    >>> found = compare_differences(np.array([1.0, 1.0, 0.0, -1.0]), groups=None, right_or_wrong=True)
    >>> found.gain, found.fixed, found.broken
    (0.25, 2, 1)
    """
    index = number_groups(groups, len(difference))
    gain = float(difference.mean())
    if not math.isfinite(gain):  # a model that is broken on one example: of the mean nothing can be said
        return Comparison(gain, (-math.inf, math.inf), 1.0, *_changed(difference))
    p_value = sign_flip_p_value(totals_of(difference, index), counts=right_or_wrong, seed=seed)
    interval = score_interval(difference, index) if right_or_wrong else mean_interval(difference, index, seed=seed)
    interval, p_value = agreeing(gain, interval, p_value)
    return Comparison(gain, interval, p_value, *_changed(difference))


def agreeing(gain: float, interval: Interval, p_value: float) -> tuple[Interval, float]:
    """Return an interval and a p-value of which neither claims what the other denies, each the more cautious of the two.

    Where p ≥ 0.05 the interval is widened to reach 0; where p < 0.05 and the interval holds 0, p becomes that of the interval,
    2 (1 − Φ(1.96 gain / r)), with r the interval's reach from the gain towards 0, which is at least 0.05.

    Args:
        gain: what the interval is of, and inside it.
        interval: of 95 %.
        p_value: that there is no gain.

    >>> agreeing(0.2, (0.1, 0.3), 0.2), agreeing(0.2, (0.1, 0.3), 0.01)
    (((0.0, 0.3), 0.2), ((0.1, 0.3), 0.01))
    >>> interval, p_value = agreeing(0.1, (-0.1, 0.3), 0.01)
    >>> interval, round(p_value, 2)
    ((-0.1, 0.3), 0.33)
    """
    low, high = min(interval[0], gain), max(interval[1], gain)  # they differ where rounding does
    if p_value >= LEVEL:
        return (min(low, 0.0), max(high, 0.0)), p_value
    if not low <= 0 <= high:
        return (low, high), p_value
    reach = gain - low if gain > 0 else high - gain
    distances = 0.0 if gain == 0 else abs(gain) / reach
    return (low, high), max(
        p_value, LEVEL, float(scipy.special.erfc(critical_value(math.inf) * distances / math.sqrt(2)))
    )


def _changed(difference: Floats) -> tuple[int, int]:
    return int((difference > 0).sum()), int((difference < 0).sum())


def compare_metric(
    name: str,
    actual: Floats,
    predictions: tuple[Floats, Floats],
    difference: Floats,
    *,
    label_count: int,
    values: tuple[float, float],
    groups: Indices | None,
    seed: int = 0,
) -> Comparison:
    """Compare two classifiers by a metric that is a function of sums over examples.

    p is the share of 10,000 exchanges, of the two models' predictions in half of the groups, that move the metric as far.
    The interval is that of the metric's difference over as many resamples of whole groups, widened by t/z √(G / (G − 1)) for G
    groups (the expanded percentile interval: Hesterberg, 2015, doi:10.1080/00031305.2015.1089789). For labels it reaches no
    less far than `score_interval` of the answers that changed, times how much more than accuracy the metric moves over
    resamples, so that it holds where few answers change. Both are made to agree by `agreeing`.

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
    gain = values[1] - values[0]
    index = number_groups(groups, len(difference))
    each = np.concatenate([METRICS[name].addends(actual, own, label_count) for own in predictions], axis=1)
    gains, exchanged = _resampled(name, each, index, seed)
    below, above = _reach_of_metric(gain, gains, index, difference if METRICS[name].classes else None)
    as_far = int((np.abs(exchanged) >= abs(gain) - 1e-12).sum())
    interval, p_value = agreeing(gain, (gain - below, gain + above), (1 + as_far) / (1 + RESAMPLES))
    return Comparison(gain, interval, p_value, *_changed(difference))


def _reach_of_metric(gain: float, gains: Floats, index: Indices, answers: Floats | None) -> Interval:
    """Return how far the interval of a metric's gain reaches below it and above it.

    Args:
        gain: the metric's.
        gains: the same over resamples of groups.
        index: (examples,), groups numbered from 0.
        answers: (examples,), which were fixed and broken; None for numbers.
    """
    shares = np.bincount(index) / len(index)
    student = critical_value(float(1 / (shares**2).sum())) / critical_value(math.inf)
    if math.isinf(student):
        return math.inf, math.inf
    wider = student * math.sqrt(len(shares) / max(len(shares) - 1, 1))
    low, high = (float(bound) for bound in np.quantile(gains, [LEVEL / 2, 1 - LEVEL / 2]))
    below, above = wider * max(gain - low, 0.0), wider * max(high - gain, 0.0)
    if answers is None:
        return below, above
    found = grouped_mean(answers, index)
    moves = float(gains.std()) / math.sqrt(found.variance) if found.variance > 0 else 1.0
    low, high = score_interval(answers, index)
    return max(below, max(1.0, moves) * (found.mean - low)), max(above, max(1.0, moves) * (high - found.mean))


def _resampled(name: str, each: Floats, index: Indices, seed: int) -> tuple[Floats, Floats]:
    """Return a metric's gain over resamples of groups, and over exchanges of two models' predictions in half of them."""
    value = METRICS[name].value
    kinds, counts = _kinds_of_groups(each, index)
    half = kinds.shape[1] // 2
    generator = np.random.default_rng(seed)
    gains, exchanged = np.empty(RESAMPLES), np.empty(RESAMPLES)
    turned = np.concatenate([kinds[:, half:], kinds[:, :half]], axis=1)
    step = max(1, 2_000_000 // len(counts))  # a few at a time, so that not too much of memory is held
    for start in range(0, RESAMPLES, step):
        stop = min(start + step, RESAMPLES)
        drawn = generator.multinomial(counts.sum(), counts / counts.sum(), size=stop - start) @ kinds
        gains[start:stop] = value(drawn[:, half:]) - value(drawn[:, :half])
        kept = generator.binomial(counts, 0.5, size=(stop - start, len(counts)))
        mixed = kept @ kinds + (counts - kept) @ turned
        exchanged[start:stop] = value(mixed[:, half:]) - value(mixed[:, :half])
    return gains, exchanged


def _kinds_of_groups(each: Floats, index: Indices) -> tuple[Floats, Indices]:
    """Return what groups of examples add to the metric's sums of both models, each kind of group once, and how many."""
    sums = np.zeros((int(index.max()) + 1, each.shape[1]))
    np.add.at(sums, index, each)
    kinds, counts = np.unique(sums, axis=0, return_counts=True)
    return kinds, counts


def spell_p_value(p_value: float) -> str:
    """Return what a test says; where the number is too small for the machine, how small it is at most.

    What lies below 0.05 is never spelt as if it did not.

    >>> spell_p_value(0.04), spell_p_value(7.6e-41), spell_p_value(0.0), spell_p_value(0.04997)
    ('p = 0.040', 'p = 7.6e-41', 'p < 1e-300', 'p < 0.050')
    """
    if p_value < 1e-300:
        return "p < 1e-300"
    if p_value >= 0.001:
        spelt = f"{p_value:.3f}"
        return "p < 0.050" if p_value < LEVEL and spelt == "0.050" else f"p = {spelt}"
    return f"p = {p_value:.1e}"
