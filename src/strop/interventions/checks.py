"""What every method asks of the tensors it is given."""

from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from strop.errors import InterventionError


def refuse_unknown(tensors: Mapping[str, Tensor], known: Collection[str], *, where: str, method: str) -> None:
    """Raise InterventionError if a tensor has a name that a method knows nothing of.

    Args:
        tensors: by name.
        known: the names there may be.
        where: the intervention's address.
        method: its name.
    """
    for name in sorted(set(tensors) - set(known)):
        has = f"it knows {', '.join(sorted(known))}" if known else "it knows none"
        raise InterventionError(f"{where}: {method} knows no tensor '{name}', and the recipe has one; {has}.")


def is_finite(tensor: Tensor) -> bool:
    """Return whether a tensor is made of finite real numbers."""
    return tensor.is_floating_point() and bool(torch.isfinite(tensor).all())
