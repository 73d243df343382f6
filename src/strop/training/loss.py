"""What a batch of a training costs."""

import dataclasses

from torch import Tensor


@dataclasses.dataclass(frozen=True, eq=False)
class Loss:
    """What a batch costs."""

    total: Tensor
    """Added up over its answer tokens, or its texts."""
    count: int
    """How many these are."""
    logits: Tensor
