"""What every method asks of the tensors it is given."""

from collections.abc import Collection, Mapping

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


def refuse_other_factors(tensors: Mapping[str, Tensor], matrix: Tensor, *, where: str, largest: bool) -> None:
    """Raise InterventionError if there are factors, `left` and `right`, that are not components of a matrix.

    Args:
        tensors: what a recipe carries.
        matrix: (out, in), that the intervention edits.
        where: the intervention's address.
        largest: they are to be those of the largest singular values.
    """
    if "left" in tensors and not are_components(matrix, tensors["left"], tensors["right"], largest=largest):
        raise InterventionError(
            f"{where}: the recipe's factors are not {'the largest ' if largest else ''}components of this matrix, so they would "
            "put another in its place; make the recipe anew, or leave them out."
        )


def is_finite(tensor: Tensor) -> bool:
    """Return whether a tensor is made of finite real numbers."""
    return tensor.is_floating_point() and bool(torch.isfinite(tensor).all())
