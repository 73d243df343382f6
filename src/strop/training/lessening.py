"""Less of what was learned, where all of it does more harm than a guard allows."""

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence

from torch import Tensor

from strop.interventions import Attachment, Lessens

MARGIN = 0.94
"""Of the share that would just do, for what is foreseen a little wrong."""
LEAST = 0.1
"""Less of an edit than this is not tried."""
ATTEMPTS = 3
"""Shares that are tried, each by what those before it were found to harm."""
SQUARE, SLOWEST = 2.0, 0.5
"""The power of the share with which harm grows until two shares are known, and the least it is taken for."""


def share_within(bound: float, harms: Sequence[tuple[float, float]], *, at_none: float = 0.0) -> float:
    """Return how much of an edit a guard will allow, 0 where that is hardly anything or not known.

    s ← s · ((bound − h₀) / (harm − h₀))^(1/p), p = 2 at first: to second order KL(base ‖ edited) = ½ dᵀ F d grows with the square
    of the change d (F is the Fisher information; Amari, Natural Gradient Works Efficiently in Learning, 1998, section 2). From
    the second share on, p is what the last two have shown.

    Args:
        bound: the most harm that is allowed.
        harms: of the shares that were tried, each with its harm, which is more than that.
        at_none: h₀, the harm where nothing is left of the edit: that of the edits it was learned on top of.

    >>> share_within(0.05, [(1.0, 0.08)])
    0.7431
    >>> share_within(0.05, [(1.0, 0.08), (0.7431, 0.06)])
    0.5787
    """
    (share, harm), before = harms[-1], harms[:-1]
    if not 0 <= at_none < bound < harm < math.inf:
        return 0.0
    power = SQUARE
    if before and harm > at_none:
        last_share, last_harm = before[-1]
        power = math.log((last_harm - at_none) / (harm - at_none)) / math.log(last_share / share)
    within = (bound - at_none) / (harm - at_none)
    found = MARGIN * share * within ** (1 / min(max(power, SLOWEST), SQUARE))
    return round(found, 4) if found >= LEAST else 0.0


@contextlib.contextmanager
def lessened(attachment: Attachment, share: float, *, learning_from: int) -> Iterator[bool]:
    """Let edits that learn change a share of what they do within the block, and afterwards what they did, bit for bit.

    Yields whether they can: where a formula holds no share of its change, or a head learns beside them, all stay as they are.

    Args:
        attachment: of the edits.
        share: from 0 to 1.
        learning_from: the index of the first one that learns; those before it stay.
    """
    before = attachment.tensors
    lesser: list[Mapping[str, Tensor] | None] = []
    for entry, own in zip(attachment.interventions[learning_from:], before[learning_from:], strict=True):
        if entry.learned_tensors:
            lesser.append(entry.lessened(own, share) if isinstance(entry, Lessens) else None)
        else:
            lesser.append({})
    if attachment.head is not None or any(own is None for own in lesser):
        yield False
        return
    attachment.load([*before[:learning_from], *(own or {} for own in lesser)])
    try:
        yield True
    finally:
        attachment.load(before)
