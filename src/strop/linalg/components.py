"""Whether two factors are what they are said to be: components of a matrix."""

import torch
from jaxtyping import Float
from torch import Tensor

from strop.linalg.precision import full_precision

_STEPS = 12


@full_precision()
def are_components(
    matrix: Float[Tensor, "out in"],
    left: Float[Tensor, "out some"],
    right: Float[Tensor, "some in"],
    *,
    largest: bool = False,
) -> bool:
    """Return whether left = U_R diag(σ_R) and right = V_Rᵀ for some components R of a matrix, without decomposing it.

    V_Rᵀ V_R = I, W V_R = U_R diag(σ_R) and (U_R diag(σ_R))ᵀ W = diag(σ_R²) V_Rᵀ; and ‖W − U_R diag(σ_R) V_Rᵀ‖₂ ≤ min σ_R,
    by a few power iterations, where they are to be the largest.

    Args:
        matrix: W, (out, in); in half precision it may be the rounding of what was decomposed.
        left: (out, some).
        right: (some, in).
        largest: R is to hold the largest singular values.

    >>> from strop.linalg import decompose
    >>> w = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    >>> are_components(w, *decompose(w).factors_of([1])), are_components(w, *decompose(w).factors_of([1]), largest=True)
    (True, False)
    """
    tolerance = 1e-3 if matrix.dtype in (torch.float32, torch.float64) else 2e-2
    wide = torch.float64 if matrix.dtype == torch.float64 else torch.float32
    whole, left, right = (tensor.to(matrix.device, wide) for tensor in (matrix, left, right))
    norm = whole.norm()
    squares = left.square().sum(0)
    eye = torch.eye(right.shape[0], dtype=right.dtype, device=right.device)
    found = (
        bool(((right @ right.T - eye).abs() < tolerance).all())
        and bool((whole @ right.T - left).norm() <= tolerance * norm)
        and bool((left.T @ whole - squares[:, None] * right).norm() <= tolerance * norm.square())
    )
    if not found or not largest or not len(squares):
        return found
    rest = _largest_singular_value(whole - left @ right)
    return rest <= float(squares.min().sqrt()) * (1 + tolerance) + tolerance * float(norm)


def _largest_singular_value(matrix: Tensor) -> float:
    """Return at most the largest singular value, and nearly it, by power iterations from a fixed start."""
    generator = torch.Generator().manual_seed(0)
    vector = torch.randn(matrix.shape[1], generator=generator, dtype=matrix.dtype).to(matrix.device)
    for _ in range(_STEPS):
        vector = matrix.T @ (matrix @ (vector / vector.norm().clamp_min(1e-30)))
    return float((matrix @ (vector / vector.norm().clamp_min(1e-30))).norm())
