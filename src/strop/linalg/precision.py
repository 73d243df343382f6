"""Compute in the precision tensors have, whatever autocast, TF32 and their like would make of it."""

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import torch

_DEVICES = ("cpu", "cuda", "mps", "xpu")
_LOCK = threading.Lock()
_SHORTENED: dict[str, str] = {}
"""By backend, what its float32 products were computed in before the first of the blocks that are going on."""
_blocks = 0


@contextlib.contextmanager
def full_precision() -> Iterator[None]:
    """Let products of float32 tensors be computed in float32 within the block, or within a function it decorates.

    Autocast is switched off for this thread. What PyTorch is told for all threads (`allow_tf32`,
    `set_float32_matmul_precision`) is set aside until the last such block ends.

    >>> with torch.autocast("cpu", dtype=torch.bfloat16), full_precision():
    ...     (torch.ones(1, 1) @ torch.tensor([[1.001]])).dtype
    torch.float32
    """
    with contextlib.ExitStack() as undo:
        for device in _DEVICES:
            if torch.is_autocast_enabled(device):
                undo.enter_context(torch.autocast(device, enabled=False))
        _begin()
        undo.callback(_end)
        yield


def _begin() -> None:
    global _blocks
    with _LOCK:
        _blocks += 1
        for name, backend in _backends().items():
            if backend.fp32_precision != "ieee":
                _SHORTENED.setdefault(name, backend.fp32_precision)
                backend.fp32_precision = "ieee"


def _end() -> None:
    global _blocks
    with _LOCK:
        _blocks -= 1
        if _blocks:
            return
        for name, backend in _backends().items():
            if name in _SHORTENED:
                backend.fp32_precision = _SHORTENED.pop(name)


def _backends() -> dict[str, Any]:
    """Return what computes products; nothing where PyTorch is too old to be asked for each."""
    found = {"cuda": torch.backends.cuda.matmul, "mkldnn": getattr(torch.backends.mkldnn, "matmul", None)}
    return {name: backend for name, backend in found.items() if hasattr(backend, "fp32_precision")}
