"""Two evaluations of the same examples, paired."""

import numpy as np

from strop.errors import UsageError
from strop.scoring.evaluation import Evaluation
from strop.statistics import Comparison, compare_differences, compare_metric


def compare(base: Evaluation, edited: Evaluation, *, seed: int = 0) -> Comparison:
    """Compare two evaluations of the same examples, pair by pair.

    p is McNemar's exact test, Wilcoxon's signed ranks where only losses are measured, or a paired permutation test for
    other metrics than accuracy; the interval resamples whole groups (see `strop.statistics.compare_differences` and
    `compare_metric`). McNemar's test takes examples for independent.

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
    right_or_wrong = base.correct is not None
    difference = base.loss - edited.loss
    if base.correct is not None and edited.correct is not None:
        difference = edited.correct.astype(np.float64) - base.correct
    if base.labels is None or base.labels.metric == "accuracy":
        return compare_differences(difference, groups=base.groups, right_or_wrong=right_or_wrong, seed=seed)
    assert base.metric is not None  # evaluations of labels have one
    assert edited.metric is not None
    assert base.actual is not None
    assert base.predicted is not None
    assert edited.predicted is not None
    return compare_metric(
        base.labels.metric,
        base.actual,
        (base.predicted, edited.predicted),
        difference,
        label_count=base.labels.count,
        values=(base.metric[1], edited.metric[1]),
        groups=base.groups,
        seed=seed,
    )
