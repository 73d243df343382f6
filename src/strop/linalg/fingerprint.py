"""The identity of a tensor's values."""

import hashlib
from collections.abc import Iterator

import torch
from torch import Tensor


def fingerprint(tensor: Tensor) -> str:
    """Return 32 hexadecimal digits that change with any bit of a tensor, its dtype or its shape.

    sha256(dtype ‖ shape ‖ row-major bytes), its first 128 bits.

    Args:
        tensor: any shape, dtype and device.

    >>> fingerprint(torch.zeros(2, 3)) == fingerprint(torch.zeros(3, 2))
    False
    """
    digest = hashlib.sha256(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
    for kept in _kept_in(tensor.detach()):
        digest.update(kept.cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()[:32]


def _kept_in(tensor: Tensor) -> Iterator[Tensor]:
    """Yield the plain tensors that hold a tensor's values: several where it is of a quantised kind, such as torchao's."""
    flatten = getattr(tensor, "__tensor_flatten__", None)
    if flatten is None:
        yield tensor
        return
    for name in flatten()[0]:
        yield from _kept_in(getattr(tensor, name))
