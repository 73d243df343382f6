"""The average of what was learned late in a training: one more candidate, beside its epochs."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

SHARE = 3
"""The last third of the steps is averaged: the last two of the six epochs there are by default, when the rate is low already."""

_MEAN = "late_mean"


def late_steps(steps: int) -> int:
    """Return how many of a training's steps are late."""
    return max(1, steps // SHARE)


def note_step(optimiser: Any, *, step: int, steps: int) -> None:
    """Take what a step left into the average, if it is a late one.

    p̄ = (1/n) Σ p_t over the last n steps (tail averaging: Jain et al., arXiv 1610.03774; weights: arXiv 1803.05407). It is
    kept among what the optimiser remembers of a parameter, and so is in every checkpoint.

    Args:
        optimiser: of what learns.
        step: the one that was taken, counted from 1.
        steps: how many there will be.
    """
    number = step - (steps - late_steps(steps))
    if number < 1:
        return
    with torch.no_grad():
        for parameter, remembered in optimiser.state.items():
            if number == 1:
                remembered[_MEAN] = parameter.detach().clone()
            else:
                remembered[_MEAN].lerp_(parameter, 1 / number)


@contextlib.contextmanager
def averaged(optimiser: Any) -> Iterator[None]:
    """Let parameters be their average within the block, and afterwards what they were, bit for bit."""
    before = {parameter: parameter.detach().clone() for parameter in optimiser.state}
    with torch.no_grad():
        for parameter in before:
            parameter.copy_(optimiser.state[parameter][_MEAN])
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter, own in before.items():
                parameter.copy_(own)
