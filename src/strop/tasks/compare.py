"""Two evaluations of the same examples, paired."""

import dataclasses
from typing import Any

import numpy as np
import scipy.stats
from numpy.typing import NDArray

from strop.errors import UsageError
from strop.tasks.evaluation import Evaluation
from strop.tasks.metrics import METRICS, Floats

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


def compare(base: Evaluation, edited: Evaluation, *, seed: int = 0) -> Comparison:
    """Compare two evaluations of the same examples, pair by pair.

    p = P(min(fixed, broken) or fewer of fixed + broken tosses of a fair coin), two-sided (McNemar, 1947, exact form);
    the interval is the 2.5 % and 97.5 % point of the mean difference over 10,000 resamples of the examples, whole groups
    at a time where the task has groups. McNemar's test takes examples for independent. For a metric other than accuracy the
    interval is that of the metric's difference over as many resamples, and p the share of 10,000 exchanges, of the two
    models' predictions in half of the groups, that move the metric as far.

    Args:
        base: of the model as it was.
        edited: of the model with a recipe applied, on the same examples in the same order.
        seed: of the bootstrap.

    Raises:
        UsageError: the evaluations are not of the same score and number of examples.
    """
    same = (base.score, base.count, base.labels) == (edited.score, edited.count, edited.labels)
    same = same and (base.actual is None or np.array_equal(base.actual, edited.actual))  # type: ignore[arg-type]
    if not same or not np.array_equal(base.tokens, edited.tokens):
        raise UsageError(
            f"Only evaluations of the same examples can be compared, not {base.count} scored by {base.score} with "
            f"{edited.count} scored by {edited.score}."
        )
    if base.correct is not None and edited.correct is not None:
        difference = edited.correct.astype(np.float64) - base.correct
    else:
        difference = base.loss - edited.loss
    fixed, broken = int((difference > 0).sum()), int((difference < 0).sum())
    if base.labels is not None and base.labels.metric != "accuracy":
        return _of_metric(base, edited, fixed, broken, seed)
    return Comparison(
        gain=float(difference.mean()),
        ci95=_bootstrap(difference, base.groups, seed),
        p_value=_p_value(difference, fixed, broken, counts=base.correct is not None),
        fixed=fixed,
        broken=broken,
    )


def _of_metric(base: Evaluation, edited: Evaluation, fixed: int, broken: int, seed: int) -> Comparison:
    """Compare by a metric that is a function of sums over examples."""
    assert base.metric is not None  # evaluations of labels have one
    assert edited.metric is not None
    gain = edited.metric[1] - base.metric[1]
    value = METRICS[base.metric[0]].value
    kinds, counts = _kinds_of_groups(base, edited)
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


def _kinds_of_groups(base: Evaluation, edited: Evaluation) -> tuple[Floats, NDArray[np.int64]]:
    """Return what groups of examples add to the metric's sums of both models, each kind of group once, and how many."""
    assert base.labels is not None  # as above
    addends = [
        METRICS[base.labels.metric].addends(of.actual, of.predicted, base.labels.count)  # type: ignore[arg-type]
        for of in (base, edited)
    ]
    each = np.concatenate(addends, axis=1)
    index = np.arange(base.count) if base.groups is None else base.groups
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
