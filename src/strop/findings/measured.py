"""A run's answers as numbers: right and wrong, or losses where nothing is right or wrong."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from strop.runs import KeptAnswer, numbered_groups
from strop.statistics.spread import Measure


@dataclasses.dataclass(frozen=True, eq=False)
class Measured:
    """What base and edited model made of the same examples."""

    measure: Measure
    before: NDArray[np.float64]
    """(examples,): 1 for a right answer and 0 for a wrong one; or the loss."""
    after: NDArray[np.float64]
    groups: NDArray[np.int64]
    """(examples,), numbered from 0; answers of one group are one observation."""


def measured(answers: Sequence[KeptAnswer]) -> Measured | None:
    """Return answers as numbers; None where there are none, or a loss that counts is not finite.

    Args:
        answers: of a run.
    """
    if not answers:
        return None
    by_right = all(answer.right_before is not None and answer.right_after is not None for answer in answers)
    pairs = (
        [(float(bool(answer.right_before)), float(bool(answer.right_after))) for answer in answers]
        if by_right
        else [(answer.loss_before, answer.loss_after) for answer in answers]
    )
    if any(value is None for pair in pairs for value in pair):
        return None
    numbers = np.array(pairs, dtype=np.float64)
    groups = np.array(numbered_groups(answers), dtype=np.int64)
    return Measured("accuracy" if by_right else "loss", numbers[:, 0], numbers[:, 1], groups)
