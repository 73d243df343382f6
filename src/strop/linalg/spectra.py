"""What a list of singular values says about its matrix."""

import dataclasses

import torch
from jaxtyping import Float
from torch import Tensor

from strop.errors import UsageError


def effective_rank(singular_values: Float[Tensor, " rank"]) -> float:
    """Return the effective rank: the exponential of the spectrum's entropy.

    exp(−Σ p_i ln p_i), p_i = σ_i / Σ σ_j  (Roy and Vetterli, 2007; used by LASER, arXiv 2312.13558, appendix C.1)

    Args:
        singular_values: (rank,), none negative.

    Returns:
        1 for a matrix of rank one, n for n equal singular values, 0 for a zero matrix.

    >>> round(effective_rank(torch.ones(8)), 6)
    8.0
    """
    values = singular_values.cpu().double()
    total = float(values.sum())
    if total == 0:
        return 0.0
    shares = values / total
    return float(torch.exp(-torch.special.xlogy(shares, shares).sum()))


def retained_energy(singular_values: Float[Tensor, " rank"], rank: int) -> float:
    """Return the share of a matrix's squared Frobenius norm its `rank` largest components hold.

    Σ_{i<k} σ_i² / Σ_i σ_i²

    Args:
        singular_values: (rank,), descending.
        rank: how many are kept.

    Raises:
        UsageError: the rank is negative or above the number of values.

    >>> retained_energy(torch.tensor([2.0, 1.0, 1.0]), 1)
    0.6666666666666666
    """
    if not 0 <= rank <= singular_values.shape[0]:
        raise UsageError(f"Between 0 and {singular_values.shape[0]} components can be kept, not {rank}.")
    squares = singular_values.cpu().double().square()
    total = float(squares.sum())
    return min(float(squares[:rank].sum()) / total, 1.0) if total else 1.0


@dataclasses.dataclass(frozen=True)
class Spectrum:
    """The few figures that describe a matrix's singular values."""

    full_rank: int
    """min(out, in)."""
    largest: float
    """σ₁, the spectral norm."""
    smallest: float
    """σₙ."""
    effective_rank: float
    """exp of the entropy of σ/Σσ; between 0 and `full_rank`."""
    energy_at_tenth: float
    """Share of Σσ² that the largest tenth of the components holds; between 0 and 1."""
    rank_for_90_percent: int
    """Fewest components that together hold 90 % of Σσ²."""


def spectrum_of(singular_values: Float[Tensor, " rank"]) -> Spectrum:
    """Summarise singular values.

    Args:
        singular_values: (rank,), descending.

    >>> spectrum_of(torch.tensor([3.0, 1.0])).rank_for_90_percent
    1
    """
    squares = singular_values.cpu().double().square()
    cumulative = squares.cumsum(0)
    enough = int((cumulative < 0.9 * float(cumulative[-1])).sum()) + 1
    full = singular_values.shape[0]
    return Spectrum(
        full_rank=full,
        largest=float(singular_values[0]),
        smallest=float(singular_values[-1]),
        effective_rank=effective_rank(singular_values),
        energy_at_tenth=retained_energy(singular_values, max(1, full // 10)),
        rank_for_90_percent=min(enough, full),
    )
