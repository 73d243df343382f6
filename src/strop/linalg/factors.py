"""Whether two factors are components of a matrix, without decomposing it."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from strop.linalg.precision import full_precision

PROBES = 8
"""Random directions a difference is looked for in: one as large as twice the tolerance goes unseen in 2 of 100 tries at most,
one of five times the tolerance in 3 of 100,000."""

POWER_ITERATIONS = 12
"""Steps towards the largest singular value of what is left over."""


def are_components(
    matrix: Float[Tensor, "out in"],
    left: Float[Tensor, "out some"],
    right: Float[Tensor, "some in"],
    indices: Sequence[int],
    *,
    tolerance: float,
) -> bool:
    """Return whether left = U_R diag(σ_R) and right = V_Rᵀ for a matrix W = U diag(σ) Vᵀ.

    Three products say that they are pairs of singular vectors: right rightᵀ = I, W rightᵀ = left, Wᵀ left = rightᵀ diag(σ²).
    Each is tried on random directions that nobody can foresee (Freivalds' check), so that it costs a few products of a
    matrix with a vector. Where R is the largest components, no more than σ_k may be left over: ‖W − left right‖₂ ≤ σ_k, by
    power iteration. Any other R is compared with the singular values, which are computed without their vectors.

    Args:
        matrix: W, (out, in).
        left: (out, count).
        right: (count, in).
        indices: R, ascending, counted from 0, the largest singular value.
        tolerance: how far they may be off, as a share of ‖W‖ (Frobenius).

    >>> from strop.linalg import decompose
    >>> matrix = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    >>> left, right = decompose(matrix).factors_of([0, 1])
    >>> [are_components(matrix, own, right, [0, 1], tolerance=1e-4) for own in (left, left.flip(0))]
    [True, False]
    """
    # an older PyTorch may round what a GPU multiplies all the same; see `full_precision`
    wide = torch.float64 if matrix.is_cuda or left.dtype == torch.float64 else torch.float32
    with torch.no_grad(), full_precision():
        whole = matrix.detach().to(wide)
        left, right = (factor.detach().to(whole.device, wide) for factor in (left, right))
        allowed = tolerance * float(whole.norm())
        values = left.norm(dim=0)
        if not _are_pairs(whole, left, right, values, tolerance=tolerance, allowed=allowed):
            return False
        if not len(indices):
            return True
        if indices[-1] >= min(whole.shape):
            return False
        if list(indices) == list(range(len(indices))):
            return _largest_left_over(whole, left, right) <= 1.001 * float(values.min()) + allowed
        wanted = torch.linalg.svdvals(whole)[torch.tensor(indices, device=whole.device)]
        return bool(((values - wanted).abs() <= 0.001 * wanted + allowed).all())


def _are_pairs(
    matrix: Tensor, left: Tensor, right: Tensor, values: Tensor, *, tolerance: float, allowed: float
) -> bool:
    along, across = _directions(left.shape[1], right), _directions(left.shape[1], right)
    orthonormal = (right @ (right.T @ along) - along).norm() <= 10 * tolerance * along.norm()
    mapped = _size(matrix @ (right.T @ along) - left @ along) <= allowed
    largest = values.max() if len(values) else values.new_zeros(())
    back = _size(matrix.T @ (left @ across) - right.T @ (values.square()[:, None] * across)) <= allowed * largest
    return bool(orthonormal) and bool(mapped) and bool(back)


def _size(difference: Tensor) -> Tensor:
    """Return an estimate of ‖E‖ (Frobenius) from E times random directions."""
    size: Tensor = difference.norm() / PROBES**0.5
    return size


def _largest_left_over(matrix: Tensor, left: Tensor, right: Tensor) -> float:
    """Return a bound from below, and close to it, on ‖W − left right‖₂."""
    found = torch.linalg.qr(_directions(matrix.shape[1], matrix, most=min(matrix.shape))).Q
    rest = matrix.new_zeros(())
    for _ in range(POWER_ITERATIONS):
        ahead = matrix @ found - left @ (right @ found)
        rest = torch.linalg.svdvals(ahead).max()
        found = torch.linalg.qr(matrix.T @ ahead - right.T @ (left.T @ ahead)).Q
    return float(rest)


def _directions(size: int, like: Tensor, *, most: int = PROBES) -> Tensor:
    """Return random directions that do not follow from any seed, and leave every seeded generator as it was."""
    generator = torch.Generator()
    generator.seed()
    drawn = torch.randn(size, min(most, PROBES), generator=generator, dtype=torch.float32)
    return drawn.to(like.device, like.dtype)
