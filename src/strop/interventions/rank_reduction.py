"""LASER's intervention: a weight matrix gives way to its best approximation of low rank."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from strop.anatomy import WeightSite
from strop.errors import InterventionError
from strop.interventions.base import Decompose, site_from_json
from strop.linalg import rank_for_fraction, without_components


@dataclasses.dataclass(frozen=True)
class RankReduction:
    """Keep the largest singular values of one matrix and drop the rest.

    W ← Σ_{i<k} σ_i u_i v_iᵀ, k = floor(ρ · min(m, n))  (Sharma, Ash and Misra, LASER, arXiv 2312.13558, section 4)

    Args:
        site: the matrix, or one head's share of it.
        rank_fraction: ρ, the share of the rank that is *kept*; 0 ≤ ρ < 1, where 0 leaves a matrix of zeros.

    Raises:
        UsageError: ρ is outside [0, 1).

    >>> from strop.anatomy import MatrixType
    >>> RankReduction(WeightSite(28, MatrixType.UP), rank_fraction=0.01).rank((1536, 576))
    5
    """

    site: WeightSite
    rank_fraction: float
    method: ClassVar[str] = "rank_reduction"

    def __post_init__(self) -> None:
        rank_for_fraction(self.rank_fraction, (1, 1))

    def __str__(self) -> str:
        return f"{self.site}, {self.rank_fraction:.2%} of the rank kept"

    def rank(self, shape: tuple[int, int]) -> int:
        """Return how many components stay in a matrix of this shape (out, in)."""
        return rank_for_fraction(self.rank_fraction, shape)

    def edit(self, matrix: Tensor, *, decompose: Decompose, tensors: Mapping[str, Tensor]) -> Tensor:
        """Return the matrix at its reduced rank, (out, in), in its own dtype.

        Raises:
            InterventionError: the recipe's factors do not fit the matrix.
        """
        rank = self.rank((matrix.shape[0], matrix.shape[1]))
        if "left" in tensors and "right" in tensors:
            left, right = tensors["left"].to(matrix.device), tensors["right"].to(matrix.device)
            if (left.shape, right.shape) != ((matrix.shape[0], rank), (rank, matrix.shape[1])):
                raise InterventionError(
                    f"{self.site}: factors of shapes {tuple(left.shape)} and {tuple(right.shape)} do not make a "
                    f"{matrix.shape[0]} x {matrix.shape[1]} matrix of rank {rank}."
                )
            return (left @ right).to(matrix.dtype)
        return without_components(matrix, decompose(matrix), range(rank, min(matrix.shape)))

    def output_shift(self, tensors: Mapping[str, Tensor]) -> None:
        """Return None: nothing stays behind of what is dropped."""

    def factors(self, matrix: Tensor, *, decompose: Decompose) -> dict[str, Tensor]:
        """Return left (out, k) = U_k diag(σ_k) and right (k, in) = V_kᵀ, whose product is the edited matrix."""
        left, right = decompose(matrix).factors_of(range(self.rank((matrix.shape[0], matrix.shape[1]))))
        return {"left": left.contiguous(), "right": right.contiguous()}

    def to_json(self, shape: tuple[int, int]) -> dict[str, Any]:
        """Return what a recipe writes: the decision, with the rank it means for this matrix."""
        return {
            "method": self.method,
            **self.site.to_json(),
            "rank_fraction": self.rank_fraction,
            "rank": self.rank(shape),
        }

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> "RankReduction":
        """Return the intervention a recipe's entry describes."""
        return cls(site_from_json(entry), rank_fraction=float(entry["rank_fraction"]))
