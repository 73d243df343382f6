"""What every method asks of the tensors it is given."""

from collections.abc import Callable, Collection, Mapping, Sequence

import torch
from torch import Tensor

from strop.errors import InterventionError
from strop.linalg import are_components


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


def refuse_no_components(
    matrix: Tensor, tensors: Mapping[str, Tensor], indices: Sequence[int], *, where: str, tolerance: float
) -> None:
    """Raise InterventionError if factors `left` and `right` are not certain components of a matrix.

    Args:
        matrix: (out, in).
        tensors: with both of them among it.
        indices: which components, counted from 0, the largest singular value.
        where: the intervention's address.
        tolerance: how far they may be off, as a share of the matrix's norm.
    """
    left, right = tensors["left"], tensors["right"]
    refuse_factors_unless(
        lambda: are_components(matrix, left, right, indices, tolerance=tolerance), tensors, where=where
    )


def refuse_factors_unless(fit: Callable[[], bool], tensors: Mapping[str, Tensor], *, where: str) -> None:
    """Raise InterventionError if factors `left` and `right` are too coarse to be compared, or do not fit.

    Args:
        fit: whether they do.
        tensors: with both of them among it.
        where: the intervention's address.
    """
    narrow = next((tensors[name].dtype for name in ("left", "right") if tensors[name].element_size() < 4), None)
    if narrow is not None:
        raise InterventionError(
            f"{where}: the recipe's left and right are in {str(narrow).removeprefix('torch.')}, too coarse to be this matrix's "
            "components; keep factors in float32, or write them anew by with_factors."
        )
    if not fit():
        raise InterventionError(
            f"{where}: the recipe's left and right are not the components of this matrix that it speaks of; write its "
            "factors anew by with_factors, or delete tensors.safetensors if it holds nothing else."
        )
