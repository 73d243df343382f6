"""LASER's intervention: a weight matrix gives way to its best approximation of low rank."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from strop.anatomy import WeightSite
from strop.errors import InterventionError
from strop.interventions.checks import is_finite, refuse_no_components, refuse_unknown
from strop.interventions.interfaces import Decompose, Entry, Shape
from strop.linalg import full_precision, rank_for_fraction, without_components


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
    kind: ClassVar[Literal["weight"]] = "weight"
    learned_tensors: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        rank_for_fraction(self.rank_fraction, (1, 1))

    def __str__(self) -> str:
        return f"{self.site}, {self.rank_fraction:.2%} of the rank kept"

    def rank(self, shape: Shape) -> int:
        """Return how many components stay in a matrix of this shape (out, in)."""
        return rank_for_fraction(self.rank_fraction, shape)

    def check(self, tensors: Mapping[str, Tensor], shape: Shape) -> None:
        """Make sure that tensors are none, or both factors of the edited matrix.

        Raises:
            InterventionError: they are anything else.
        """
        refuse_unknown(tensors, ("left", "right"), where=str(self.site), method=self.method)
        if not tensors:
            return
        outputs, inputs = shape
        rank = self.rank(shape)
        found = [tuple(tensors[name].shape) if name in tensors else "none" for name in ("left", "right")]
        if found != [(outputs, rank), (rank, inputs)]:
            raise InterventionError(
                f"{self.site}: factors of shapes {found[0]} and {found[1]} do not make a "
                f"{outputs} x {inputs} matrix of rank {rank}."
            )
        if not all(is_finite(factor) for factor in tensors.values()):
            raise InterventionError(f"{self.site}: its factors are not made of finite numbers; write the recipe anew.")

    def check_factors(self, matrix: Tensor, tensors: Mapping[str, Tensor], *, tolerance: float) -> None:
        """Make sure that factors, where there are any, are those of a matrix.

        Raises:
            InterventionError: they are not.
        """
        if "left" in tensors:
            kept = range(self.rank((matrix.shape[0], matrix.shape[1])))
            refuse_no_components(matrix, tensors, kept, where=str(self.site), tolerance=tolerance)

    @full_precision()
    def edit(self, matrix: Tensor, *, decompose: Decompose, tensors: Mapping[str, Tensor]) -> Tensor:
        """Return the matrix at its reduced rank, (out, in), in its own dtype."""
        if "left" in tensors and "right" in tensors:
            return (tensors["left"].to(matrix.device) @ tensors["right"].to(matrix.device)).to(matrix.dtype)
        rank = self.rank((matrix.shape[0], matrix.shape[1]))
        return without_components(matrix, decompose(matrix), range(rank, min(matrix.shape)))

    def output_shift(self, tensors: Mapping[str, Tensor]) -> None:
        """Return None: nothing stays behind of what is dropped."""

    def spectrum_scales(self, tensors: Mapping[str, Tensor], shape: Shape) -> Tensor:
        """Return 1 for each of the k largest singular values, and 0 for the others, (min(out, in),)."""
        return (torch.arange(min(shape)) < self.rank(shape)).float()

    def kept_factors(self, matrix: Tensor, *, decompose: Decompose) -> tuple[Tensor, Tensor]:
        """Return (out, k) = U_k diag(σ_k) and (k, in) = V_kᵀ, whose product is the edited matrix."""
        left, right = decompose(matrix).factors_of(range(self.rank((matrix.shape[0], matrix.shape[1]))))
        return left.contiguous(), right.contiguous()

    def precomputed(self, matrix: Tensor, *, decompose: Decompose) -> dict[str, Tensor]:
        """Return the factors that are kept, as `left` and `right`."""
        left, right = self.kept_factors(matrix, decompose=decompose)
        return {"left": left, "right": right}

    def parameter_count(self, shape: Shape) -> int:
        """Return 0: it learns nothing."""
        return 0

    def initial_tensors(self, shape: Shape | int, *, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Return none: it learns nothing."""
        return {}

    def obstacle_to_baking(self, tensors: Mapping[str, Tensor]) -> None:
        """Return None: a checkpoint's weights can hold it."""

    def to_json(self, shape: Shape) -> dict[str, Any]:
        """Return what a recipe writes: the decision, with the rank it means for this matrix."""
        return {
            "method": self.method,
            **self.site.to_json(),
            "rank_fraction": self.rank_fraction,
            "rank": self.rank(shape),
        }

    @classmethod
    def from_json(cls, entry: Entry) -> "RankReduction":
        """Return the intervention a recipe's entry describes."""
        return cls(WeightSite.from_json(entry), rank_fraction=float(entry["rank_fraction"]))

    @classmethod
    def summarize(cls, entries: Sequence[Entry]) -> dict[int, str]:
        """Return a line for each reduction."""
        return {index: _line(entry) for index, entry in enumerate(entries)}

    @classmethod
    def brief(cls, entries: Sequence[Entry]) -> str:
        """Return the ranks a matrix, or its heads, are reduced to."""
        return ", ".join(f"rank {entry['rank']}" for entry in entries)


def _line(entry: Entry) -> str:
    stack = f"{entry['stack']} " if "stack" in entry else ""
    part = "".join(f" {name} {entry[name]}" for name in ("head", "expert") if name in entry)
    return (
        f"{stack}layer {entry['layer']} {entry['matrix_type']}{part}: rank reduction to rank {entry['rank']} "
        f"({100 * entry['rank_fraction']:.1f} % kept)"
    )
