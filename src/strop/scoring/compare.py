"""Two evaluations of the same examples, paired: what was gained, and how it is spread over categories."""

import numpy as np

from strop.errors import UsageError
from strop.scoring.evaluation import Evaluation
from strop.statistics import Comparison, Spread, compare_differences, compare_metric, spread_of


def compare(base: Evaluation, edited: Evaluation, *, seed: int = 0) -> Comparison:
    """Compare two evaluations of the same examples, pair by pair.

    p and the interval count groups of examples and never contradict each other: for right and wrong answers the exact sign
    flip test (McNemar's where each example stands alone) and Tango's score interval, for losses sign flips with t and
    bootstrap-t, for other metrics than accuracy exchanges of predictions with a bootstrap (see
    `strop.statistics.compare_differences` and `compare_metric`). An evaluation compared with itself gains exactly nothing.

    Args:
        base: of the model as it was.
        edited: of the model with a recipe applied, on the same examples in the same order.
        seed: of random signs and resamples.

    Raises:
        UsageError: the evaluations are not of the same score and number of examples.
    """
    _require_same_examples(base, edited)
    if edited is base:
        return Comparison(gain=0.0, ci95=(0.0, 0.0), p_value=1.0, fixed=0, broken=0)
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


def spread(base: Evaluation, edited: Evaluation, *, seed: int = 0) -> Spread | None:
    """Return how the gain is spread over the examples' categories; None where they have none or nothing was edited.

    It is the gain in accuracy, also where a classifier is judged by another metric; of loss where no answer is right or
    wrong (see `strop.statistics.spread_of`).

    Args:
        base: of the model as it was.
        edited: of the model with a recipe applied, on the same examples in the same order.
        seed: of resamples of losses.

    Raises:
        UsageError: the evaluations are not of the same score and number of examples.
    """
    _require_same_examples(base, edited)
    if base.categories is None or edited is base:
        return None
    accuracy = base.correct is not None and edited.correct is not None
    return spread_of(
        base.correct if accuracy else base.loss,  # type: ignore[arg-type]
        edited.correct if accuracy else edited.loss,  # type: ignore[arg-type]
        categories=base.categories,
        groups=base.groups,
        measure="accuracy" if accuracy else "loss",
        seed=seed,
    )


def _require_same_examples(base: Evaluation, edited: Evaluation) -> None:
    same = (base.score, base.count, base.labels) == (edited.score, edited.count, edited.labels)
    same = same and (base.actual is None or np.array_equal(base.actual, edited.actual))  # type: ignore[arg-type]
    same = same and base.categories == edited.categories
    if not same or not np.array_equal(base.tokens, edited.tokens):
        raise UsageError(
            f"Only evaluations of the same examples can be compared, not {base.count} scored by {base.score} with "
            f"{edited.count} scored by {edited.score}."
        )
