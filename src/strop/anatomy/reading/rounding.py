"""How far apart two ways to compute the same may come out."""

import torch
from torch import Tensor


def rounding_of(dtype: torch.dtype) -> float:
    """Return the share of a hidden state's size that a whole pass may lose to rounding.

    >>> rounding_of(torch.float32), round(rounding_of(torch.bfloat16), 3)
    (3e-05, 0.088)
    """
    return float(max(3e-5, torch.finfo(dtype).eps ** 0.5 if dtype.itemsize < 4 else 0.0))


def differ(found: Tensor, expected: Tensor) -> bool:
    """Return whether two batches of states differ by more than rounding at any token.

    Args:
        found: (…, features).
        expected: (…, features), in the same dtype.
    """
    off = (found.float() - expected.float()).norm(dim=-1)
    return bool((off > rounding_of(expected.dtype) * expected.float().norm(dim=-1)).any())
