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
    """Percentile bootstrap over examples."""
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
    the interval is the 2.5 % and 97.5 % point of the mean difference over 10,000 resamples of the examples.

    Args:
        base: of the model as it was.
        edited: of the model with a recipe applied, on the same examples in the same order.
        seed: of the bootstrap.

    Raises:
        UsageError: the evaluations are not of the same score and number of examples.
    """
    if (base.score, base.count) != (edited.score, edited.count):
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
        ci95=_bootstrap(difference, seed),
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


def _bootstrap(difference: NDArray[np.float64], seed: int) -> tuple[float, float]:
    generator = np.random.default_rng(seed)
    values, counts = np.unique(difference, return_counts=True)
    if len(values) <= 3:  # resampling a few distinct values is one multinomial draw
        drawn = generator.multinomial(len(difference), counts / len(difference), size=RESAMPLES)
        means = drawn @ values / len(difference)
    else:
        means = np.array(
            [generator.choice(difference, size=len(difference)).mean() for _ in range(RESAMPLES)], dtype=np.float64
        )
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)
