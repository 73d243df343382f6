"""The bytes a tensor's values are stored as."""

from collections.abc import Iterator

import torch
from torch import Tensor


def stored_bytes(tensor: Tensor) -> Iterator[Tensor]:
    """Yield a tensor's row-major bytes, on its device: in several pieces where it is of a quantised kind, such as torchao's.

    Args:
        tensor: any shape, dtype and device.

    >>> [list(piece.shape) for piece in stored_bytes(torch.zeros(2, 3))]
    [[24]]
    """
    for kept in _plain(tensor.detach()):
        yield kept.contiguous().flatten().view(torch.uint8)


def _plain(tensor: Tensor) -> Iterator[Tensor]:
    flatten = getattr(tensor, "__tensor_flatten__", None)
    if flatten is None:
        yield tensor
        return
    for name in flatten()[0]:
        yield from _plain(getattr(tensor, name))
