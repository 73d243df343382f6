"""The decomposition through the Gram matrix, with what squaring loses made good."""

import math

import torch
from torch import Tensor

CONDITION = 1e4
"""Largest σ₁/σᵢ at which the square tells σᵢ: squared, times float64's 2e-16, it keeps u orthonormal to 2e-8."""
NOISE = 1e-13
"""As a share of σ₁, the length of the random directions that stand in for left vectors nothing tells."""


def decompose_by_gram(matrices: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the factors of float32 matrices, (count, out, in), from the eigenvectors of the smaller of WᵀW and WWᵀ in float64.

    Where the square has lost a σᵢ, its left vector is not W vᵢ / σᵢ. The span of the right vectors concerned, V, is known all
    the same: W V less what lies along the left vectors found is a thin matrix, which is decomposed for itself.

    Args:
        matrices: (count, out, in), on a device with float64.

    Returns:
        u (count, out, rank), σ (count, rank) descending and vh (count, rank, in), in the matrices' dtype.
    """
    wide = matrices.shape[-2] < matrices.shape[-1]
    tall = (matrices.mT if wide else matrices).double()
    eigenvalues, eigenvectors = torch.linalg.eigh(tall.mT @ tall)
    right = eigenvectors.flip(-1)
    s = eigenvalues.flip(-1).clamp_min(0).sqrt()
    left = (tall @ right) / s.unsqueeze(-2)
    told = (s * CONDITION > s[:, :1]).sum(-1).tolist()
    for index, count in enumerate(told):
        if count < s.shape[-1]:
            _complete(tall[index], left[index], s[index], right[index], count)
    u, v = (right, left) if wide else (left, right)
    return u.to(matrices.dtype), s.to(matrices.dtype), v.mT.to(matrices.dtype)


def _complete(matrix: Tensor, left: Tensor, s: Tensor, right: Tensor, told: int) -> None:
    """Put right, in place, all but the first `told` of a matrix's triples, (long, short) = left diag(s) rightᵀ."""
    found, span = left[:, :told], right[:, told:]

    def beside_found(columns: Tensor) -> Tensor:
        for _ in range(2):  # twice is enough
            columns = columns - found @ (found.mT @ columns)
        return columns

    image = beside_found(matrix @ span)
    drawn = torch.randn(image.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(image.device)
    basis = torch.linalg.qr(beside_found(image + drawn * (NOISE * s[0] / math.sqrt(len(image))))).Q
    basis = torch.linalg.qr(beside_found(basis)).Q
    u, values, vh = torch.linalg.svd(basis.mT @ image)
    right[:, told:] = span @ vh.mT
    left[:, told:] = basis @ u
    s[told:] = torch.minimum(values, s[told - 1]) if told else values
