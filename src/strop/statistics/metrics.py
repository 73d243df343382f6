"""What labels are judged by: accuracy, F1, Matthews correlation, Pearson and Spearman correlation.

Each is a function of sums over examples, so that its value on ten thousand resamples is one matrix product.
"""

import dataclasses
import importlib.util
from collections.abc import Callable, Mapping

import numpy as np
import scipy.stats
from numpy.typing import NDArray

from strop.errors import UsageError

Floats = NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class Metric:
    """One metric of right answers and predictions.

    Args:
        addends: (examples, k), what each example adds, from right answers (examples,), predictions (examples,) and the
            count of labels.
        value: (…,), the metric, from sums (…, k) of the addends.
        reference: scikit-learn's or scipy's own function of these, which figures are computed with; it is called only
            where the metric is defined.
        needs_scikit_learn: the reference is scikit-learn's.
        classes: it is about labels; else about numbers.
    """

    addends: Callable[[Floats, Floats, int], Floats]
    value: Callable[[Floats], Floats]
    reference: Callable[[Floats, Floats, int], float]
    needs_scikit_learn: bool = False
    classes: bool = True


def of_classes(name: str) -> bool:
    """Return whether a metric is about labels; else it is about numbers."""
    return METRICS[name].classes


def measure(name: str, actual: Floats, predicted: Floats, count: int) -> float:
    """Return a metric of predictions, 0 where it is not defined: a correlation with predictions that are all alike.

    Accuracy = (1/n) Σ 1[ŷ = y]; F1 = 2TP / (2TP + FP + FN) of the second of two labels, the mean over all labels of
    three or more; Matthews = (TP·TN − FP·FN) / √((TP+FP)(TP+FN)(TN+FP)(TN+FN)); Pearson = cov(y, ŷ) / (σ_y σ_ŷ);
    Spearman is Pearson of the ranks. They are scikit-learn's and scipy's.

    Args:
        name: one of `METRICS`.
        actual: (examples,), the labels' indices or the right numbers.
        predicted: (examples,), the same of what the model says.
        count: of labels; 1 where the answer is a number.

    Raises:
        UsageError: it is scikit-learn's, which is not installed.

    >>> measure("accuracy", np.array([0.0, 1.0, 1.0]), np.array([0.0, 1.0, 0.0]), 2)
    0.6666666666666666
    """
    require(name)
    if not of_classes(name) and (np.ptp(actual) == 0 or np.ptp(predicted) == 0):
        return 0.0
    return METRICS[name].reference(actual, predicted, count)


def require(name: str) -> None:
    """Raise UsageError where a metric is scikit-learn's and scikit-learn is not installed."""
    if METRICS[name].needs_scikit_learn and importlib.util.find_spec("sklearn") is None:
        raise UsageError(f"metric: {name} is computed by scikit-learn, which is not here; pip install 'strop[glue]'.")


def _hits(actual: Floats, predicted: Floats, count: int) -> Floats:
    return np.stack([np.ones_like(actual), actual == predicted], axis=1).astype(np.float64)


def _accuracy(sums: Floats) -> Floats:
    return _ratio(sums[..., 1], sums[..., 0])


def _cells(actual: Floats, predicted: Floats, count: int) -> Floats:
    """Return for each example its cell in a table of right answers by predictions, flattened."""
    cells = np.zeros((len(actual), count * count))
    cells[np.arange(len(actual)), (actual * count + predicted).astype(np.int64)] = 1
    return cells


def _table(sums: Floats) -> Floats:
    size = round(sums.shape[-1] ** 0.5)
    return sums.reshape(*sums.shape[:-1], size, size)


def _f1(sums: Floats) -> Floats:
    table = _table(sums)
    right = np.diagonal(table, axis1=-2, axis2=-1)
    marked = table.sum(-1) + table.sum(-2)
    each = _ratio(2 * right, marked)
    if table.shape[-1] == 2:
        return each[..., 1]
    present = marked > 0  # a label that no resampled row has or is given counts for nothing, as in scikit-learn
    return _ratio((each * present).sum(-1), present.sum(-1).astype(np.float64))


def _matthews(sums: Floats) -> Floats:
    table = _table(sums)
    actual, predicted, total = table.sum(-1), table.sum(-2), table.sum((-2, -1))
    right = np.diagonal(table, axis1=-2, axis2=-1).sum(-1)
    covariance = right * total - (actual * predicted).sum(-1)
    spread = (total**2 - (actual**2).sum(-1)) * (total**2 - (predicted**2).sum(-1))
    return _ratio(covariance, np.sqrt(np.maximum(spread, 0)))


def _moments(actual: Floats, predicted: Floats, count: int) -> Floats:
    x, y = actual - actual.mean(), predicted - predicted.mean()
    return np.stack([np.ones_like(x), x, y, x * x, y * y, x * y], axis=1)


def _moments_of_ranks(actual: Floats, predicted: Floats, count: int) -> Floats:
    return _moments(scipy.stats.rankdata(actual), scipy.stats.rankdata(predicted), count)


def _correlation(sums: Floats) -> Floats:
    n, x, y, xx, yy, xy = np.moveaxis(sums, -1, 0)
    spread = np.maximum(n * xx - x * x, 0) * np.maximum(n * yy - y * y, 0)
    return _ratio(n * xy - x * y, np.sqrt(spread))


def _ratio(above: Floats, below: Floats) -> Floats:
    return np.divide(above, below, out=np.zeros_like(above), where=below > 1e-12)


def _reference_f1(actual: Floats, predicted: Floats, count: int) -> float:
    from sklearn.metrics import f1_score

    return float(f1_score(actual, predicted, average="binary" if count == 2 else "macro", zero_division=0))


def _reference_matthews(actual: Floats, predicted: Floats, count: int) -> float:
    from sklearn.metrics import matthews_corrcoef

    return float(matthews_corrcoef(actual, predicted))


def _reference_pearson(actual: Floats, predicted: Floats, count: int) -> float:
    return float(scipy.stats.pearsonr(actual, predicted).statistic)


def _reference_spearman(actual: Floats, predicted: Floats, count: int) -> float:
    return float(scipy.stats.spearmanr(actual, predicted).statistic)


METRICS: Mapping[str, Metric] = {
    "accuracy": Metric(_hits, _accuracy, lambda actual, predicted, count: float((actual == predicted).mean())),
    "f1": Metric(_cells, _f1, _reference_f1, needs_scikit_learn=True),
    "matthews": Metric(_cells, _matthews, _reference_matthews, needs_scikit_learn=True),
    "pearson": Metric(_moments, _correlation, _reference_pearson, classes=False),
    "spearman": Metric(_moments_of_ranks, _correlation, _reference_spearman, classes=False),
}
"""By name, in a task file's words."""
