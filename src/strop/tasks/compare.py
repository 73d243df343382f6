"""Two evaluations of the same examples, paired."""

import dataclasses
from typing import Any

import numpy as np
import scipy.stats
from numpy.typing import NDArray

from strop.errors import UsageError
from strop.tasks.evaluation import Evaluation

RESAMPLES = 10_000


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What an edit changed on the same examples."""

    gain: float
    """Edited minus base accuracy, as a fraction; for `perplexity`, base minus edited mean loss, in nats per token."""
    ci95: tuple[float, float]
    """Percentile bootstrap over groups of examples."""
    p_value: float
    """Two-sided: McNemar's exact test; for `perplexity`, Wilcoxon's signed ranks."""
    fixed: int
    """Examples wrong before and right after; for `perplexity`, those whose loss fell."""
    broken: int
    """Examples right before and wrong after; for `perplexity`, those whose loss rose."""

    def to_json(self) -> dict[str, Any]:
        """Return what a result file holds."""
        return {**dataclasses.asdict(self), "ci95": list(self.ci95)}


def compare(base: Evaluation, edited: Evaluation, *, seed: int = 0) -> Comparison:
    """Compare two evaluations of the same examples, pair by pair.

    p = P(min(fixed, broken) or fewer of fixed + broken tosses of a fair coin), two-sided (McNemar, 1947, exact form);
    the interval is the 2.5 % and 97.5 % point of the mean difference over 10,000 resamples of the examples, whole groups
    at a time where the task has groups. McNemar's test takes examples for independent.

    Args:
        base: of the model as it was.
        edited: of the model with a recipe applied, on the same examples in the same order.
        seed: of the bootstrap.

    Raises:
        UsageError: the evaluations are not of the same score and number of examples.
    """
    same = (base.score, base.count) == (edited.score, edited.count)
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
    return Comparison(
        gain=float(difference.mean()),
        ci95=_bootstrap(difference, base.groups, seed),
        p_value=_p_value(difference, fixed, broken, counts=base.correct is not None),
        fixed=fixed,
        broken=broken,
    )


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
    step = max(1, 2_000_000 // counts.shape[0])
    for start in range(0, RESAMPLES, step):  # resampling groups of few kinds is one multinomial draw
        stop = min(start + step, RESAMPLES)
        drawn = generator.multinomial(group_count, counts / group_count, size=stop - start)
        means[start:stop] = (drawn @ kinds[0]) / (drawn @ kinds[1])
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)
