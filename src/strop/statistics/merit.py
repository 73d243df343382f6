"""What a choice maximises."""

import math
from typing import Literal

ObjectiveName = Literal["average", "macro"]
"""Which accuracy a choice maximises: over all examples, or its mean over categories, each of the same weight."""

Merit = tuple[float, float]
"""The figure that counts, and among equals minus the loss."""


def merit_of(accuracy: float | None, loss: float) -> Merit:
    """Return what a search maximises: accuracy, and among equals the lower loss (LASER's rule).

    A loss that is NaN is the worst of all, whatever was answered.

    Args:
        accuracy: 0 to 1, or a classifier's metric in its place; None where only loss is measured.
        loss: nats per answer token.

    >>> merit_of(0.5, 2.0) > merit_of(0.5, 3.0) > merit_of(0.0, 9.0) > merit_of(0.9, float("nan"))
    True
    """
    if math.isnan(loss):
        return (-math.inf, -math.inf)
    return (accuracy if accuracy is not None else 0.0, -loss)
