"""The one place where a share of a matrix's rank becomes a whole number."""

import math
from typing import Literal

from strop.errors import UsageError

Axis = Literal["output", "input"]
"""Which side's features of a matrix are parted: its rows, or its columns."""


def rank_for_fraction(rank_fraction: float, shape: tuple[int, int]) -> int:
    """Return the rank that keeps `rank_fraction` of a matrix's largest possible rank.

    rank = floor(ρ · min(m, n))  (Sharma, Ash and Misra, LASER, arXiv 2312.13558, section 4)

    The product is freed of floating-point dust before it is floored, so that 0.01 of 1600 is 16 and not 15; a share
    below one never becomes the whole.

    Args:
        rank_fraction: ρ, the share that is *kept*; 0 ≤ ρ < 1.
        shape: (m, n) of the matrix.

    Raises:
        UsageError: ρ is outside [0, 1).

    >>> rank_for_fraction(0.01, (4096, 4096)), rank_for_fraction(0.01, (1536, 576))
    (40, 5)
    """
    if not 0 <= rank_fraction < 1:
        raise UsageError(
            f"rank_fraction is the share of the rank that is kept and lies in [0, 1), not {rank_fraction}."
        )
    return min(math.floor(round(rank_fraction * min(shape), 9)), min(shape) - 1)


def fraction_for_rank(rank: int, shape: tuple[int, int]) -> float:
    """Return the fraction that `rank_for_fraction` turns back into `rank`.

    Args:
        rank: a whole number, 0 ≤ rank < min(m, n).
        shape: (m, n) of the matrix.

    Raises:
        UsageError: the rank is not below the largest possible one, so nothing would be removed.

    >>> fraction_for_rank(144, (1536, 576))
    0.25
    """
    largest = min(shape)
    if not 0 <= rank < largest:
        raise UsageError(f"A reduced rank lies in 0 to {largest - 1} for a {shape[0]} x {shape[1]} matrix, not {rank}.")
    return rank / largest


def rank_for_laser_rate(rate: float, shape: tuple[int, int]) -> int:
    """Return the rank LASER's published scripts keep at a `rate`, their float rounding included.

    rank = int(min(m, n) · (10 − rate) · 0.1), where rate counts tenths that are *removed* (LASER's repository,
    matrix_utils.py). At rate 9.9 a 1600 x 1600 matrix keeps 15 there, where a rank fraction of 0.01 keeps 16.

    Args:
        rate: 0 to 10, the tenths of the rank that are removed.
        shape: (m, n) of the matrix.

    Raises:
        UsageError: the rate is outside [0, 10].

    >>> rank_for_laser_rate(9.9, (1600, 1600)), rank_for_fraction(0.01, (1600, 1600))
    (15, 16)
    """
    if not 0 <= rate <= 10:
        raise UsageError(f"LASER's rate lies in 0 to 10, not {rate}.")
    return int(min(shape) * ((10 - rate) * 0.1))


def rank_per_subspace(rank: int, shape: tuple[int, int], *, subspaces: int, axis: Axis) -> int:
    """Return the rank of each of k subspaces whose factors are no larger than the two of one reduction to `rank`.

    j = floor(r · (N + D) / (N + k · D)), of N features parted into clusters and D on the other side: N · j coordinates and
    k bases of j · D numbers take the place of r · (N + D).

    Args:
        rank: r, of the one reduction.
        shape: (out, in) of the matrix.
        subspaces: k, from 1 to N.
        axis: which side is parted: `output`, N = out, or `input`, N = in.

    Raises:
        UsageError: there are fewer features than subspaces, or no subspaces.

    >>> [rank_per_subspace(28, (1536, 576), subspaces=k, axis="output") for k in (1, 2, 4, 8)]
    [28, 22, 15, 9]
    """
    parted, other = shape if axis == "output" else shape[::-1]
    if not 1 <= subspaces <= parted:
        raise UsageError(
            f"A {shape[0]} x {shape[1]} matrix has {parted} {axis} features, which make 1 to {parted} subspaces, not "
            f"{subspaces}."
        )
    return rank * (parted + other) // (parted + subspaces * other)
