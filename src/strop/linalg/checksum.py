"""Whether a tensor's values are those of another time, told about as fast as they can be read."""

import hashlib
from typing import Any

import numpy as np
import torch
from torch import Tensor

from strop.linalg.stored_bytes import stored_bytes

WORDS = 1024
"""How many numbers of eight bytes are a row."""
PART_ROWS = {"cpu": 128, "cuda": 2**13}
"""How many rows are added up at once, by device: what its cache holds, and what keeps it busy."""
_FACTORS = np.frombuffer(hashlib.shake_256(b"a factor for each place").digest(8 * WORDS), dtype="<i8") | 1
"""(`WORDS`,), odd."""


def checksum(tensor: Tensor) -> str:
    """Return 32 hexadecimal digits that differ wherever values were changed, damaged, moved or negated.

    The bytes are taken as rows of 1,024 integers of 64 bits. It digests Σ_j m_j w_ij mod 2⁶⁴ of every row i, m fixed odd integers
    drawn once, and the same of the integers' upper halves, for there the highest bits, such as signs, come lower and are all told
    apart. Unlike `fingerprint` it is no proof against somebody who looks for other values with the same sums; it is computed on
    the tensor's device, and is the same on each.

    Args:
        tensor: any shape, dtype and device.

    >>> checksum(torch.zeros(2, 3)) == checksum(torch.zeros(3, 2))
    False
    """
    digest = hashlib.sha256(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
    for piece in stored_bytes(tensor):
        here = piece if piece.device.type in PART_ROWS else piece.cpu()
        if here.data_ptr() % 8:
            here = here.clone()
        whole = here.numel() // (8 * WORDS) * 8 * WORDS
        for sums in _sums(here[:whole].view(torch.int64).view(-1, WORDS)) if whole else ():
            digest.update(torch.as_tensor(sums).cpu().numpy().data)
        digest.update(here[whole:].cpu().numpy().data)
    return digest.hexdigest()[:32]


def _sums(words: Tensor) -> list[Any]:
    """Return the weighted sums of integers, (rows, `WORDS`), modulo 2⁶⁴: by NumPy on the CPU, which leaves other threads alone."""
    step, on_cpu = PART_ROWS[words.device.type], words.device.type == "cpu"
    summed: Any = words.numpy() if on_cpu else words
    factors: Any = _FACTORS if on_cpu else torch.from_numpy(_FACTORS).to(words.device)
    rows: list[Any] = []
    halves: list[Any] = []
    for start in range(0, len(summed), step):
        part = summed[start : start + step]
        for sums, own in ((rows, part), (halves, part >> 32)):
            sums.append(np.einsum("ij,j->i", own, factors) if on_cpu else (own * factors).sum(1))
    return [*rows, *halves]
