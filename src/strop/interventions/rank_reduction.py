"""LASER's intervention: a weight matrix gives way to its best approximation of low rank."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor

from strop.anatomy import WeightSite
from strop.errors import InterventionError, UsageError
from strop.interventions.checks import is_finite, refuse_factors_unless, refuse_no_components, refuse_unknown
from strop.interventions.interfaces import Decompose, Entry, Shape
from strop.linalg import (
    Axis,
    PartedFactors,
    Partition,
    equal_blocks,
    full_precision,
    parted_factors,
    rank_for_fraction,
    rank_per_subspace,
    without_components,
)

MOST_SUBSPACES = 2**15 - 1
"""As many as the clusters in a recipe, of int16, can tell apart."""


@dataclasses.dataclass(frozen=True)
class RankReduction:
    """Keep the largest singular values of one matrix, or of each cluster of its features, and drop the rest.

    W ← Σ_{i<r} σ_i u_i v_iᵀ, r = floor(ρ · min(m, n))  (Sharma, Ash and Misra, LASER, arXiv 2312.13558, section 4)

    With k subspaces the features of one side are parted into k clusters, and each is reduced on its own, to the rank at which
    all factors together are as large as the two of rank r, or a little smaller: `rank_per_subspace` (arXiv 2510.20800).

    Args:
        site: the matrix, or one head's share of it.
        rank_fraction: ρ, the share of the rank that is *kept*; 0 ≤ ρ < 1, where 0 leaves a matrix of zeros.
        subspaces: k; 1 is LASER's own reduction.
        axis: which features are parted, where k is above 1: `output`, the matrix's rows, or `input`, its columns.
        partition: how: `block`, neighbours together, or `subspace`, each with those that lie near one subspace.

    Raises:
        UsageError: ρ is outside [0, 1), k is no such number, or there is no such axis or partition.

    >>> from strop.anatomy import MatrixType
    >>> site = WeightSite(28, MatrixType.UP)
    >>> RankReduction(site, rank_fraction=0.05).rank((1536, 576))
    28
    >>> RankReduction(site, rank_fraction=0.05, subspaces=4).rank((1536, 576))
    15
    """

    site: WeightSite
    rank_fraction: float
    subspaces: int = 1
    axis: Axis = "output"
    partition: Partition = "block"
    method: ClassVar[str] = "rank_reduction"
    kind: ClassVar[Literal["weight"]] = "weight"
    learned_tensors: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        rank_for_fraction(self.rank_fraction, (1, 1))
        if type(self.subspaces) is not int or not 1 <= self.subspaces <= MOST_SUBSPACES:
            raise UsageError(f"subspaces is a whole number from 1 to {MOST_SUBSPACES}, not {self.subspaces!r}.")
        for name, known in (("axis", get_args(Axis)), ("partition", get_args(Partition))):
            if getattr(self, name) not in known:
                raise UsageError(f"{name} is one of {', '.join(known)}, not {getattr(self, name)!r}.")

    def __str__(self) -> str:
        kept = f"{self.site}, {self.rank_fraction:.2%} of the rank kept"
        return kept if self.subspaces == 1 else f"{kept} in {_clusters(self.subspaces, self.axis, self.partition)}"

    def rank(self, shape: Shape) -> int:
        """Return how many components stay in a matrix of this shape (out, in), or in each cluster of its features.

        Raises:
            UsageError: it has fewer features than there are to be subspaces.
        """
        rank = rank_for_fraction(self.rank_fraction, shape)
        try:
            return rank_per_subspace(rank, shape, subspaces=self.subspaces, axis=self.axis)
        except UsageError as error:
            raise UsageError(f"{self.site}: {error}") from None

    def numbers_kept(self, shape: Shape) -> int:
        """Return how many numbers the factors of a matrix of this shape hold: j · (N + k · D), of N features parted."""
        parted, other = shape if self.axis == "output" else shape[::-1]
        return self.rank(shape) * (parted + self.subspaces * other)

    def partition_bits(self, shape: Shape) -> int:
        """Return how many bits beside them say which cluster each feature is of: N · ⌈log₂ k⌉; none where blocks are known."""
        parted = shape[0] if self.axis == "output" else shape[1]
        return parted * (self.subspaces - 1).bit_length() if self._carries_clusters else 0

    @property
    def _carries_clusters(self) -> bool:
        return self.subspaces > 1 and self.partition == "subspace"

    def check(self, tensors: Mapping[str, Tensor], shape: Shape) -> None:
        """Make sure that tensors are none, or both factors of the edited matrix, with the clusters where these are no blocks.

        Raises:
            InterventionError: they are anything else.
            UsageError: a matrix of this shape has fewer features than there are to be subspaces.
        """
        own = ("left", "right", "clusters") if self._carries_clusters else ("left", "right")
        refuse_unknown(tensors, own, where=str(self.site), method=self.method)
        (outputs, inputs), rank = shape, self.rank(shape)
        if not tensors:
            return
        by_rows = self.axis == "output" or self.subspaces == 1
        expected = [(outputs, rank), (self.subspaces * rank, inputs)]
        if not by_rows:
            expected = [(outputs, self.subspaces * rank), (rank, inputs)]
        found = [tuple(tensors[name].shape) if name in tensors else "none" for name in ("left", "right")]
        if found != expected:
            of_rank = f"rank {rank}" if self.subspaces == 1 else f"rank {rank} in each of {self.subspaces} clusters"
            raise InterventionError(
                f"{self.site}: factors of shapes {found[0]} and {found[1]} do not make a "
                f"{outputs} x {inputs} matrix of {of_rank}."
            )
        if not all(is_finite(tensors[name]) for name in ("left", "right")):
            raise InterventionError(f"{self.site}: its factors are not made of finite numbers; write the recipe anew.")
        if self._carries_clusters:
            self._check_clusters(tensors.get("clusters"), outputs if by_rows else inputs)

    def _check_clusters(self, clusters: Tensor | None, features: int) -> None:
        fits = clusters is not None and clusters.dtype == torch.int16 and tuple(clusters.shape) == (features,)
        if clusters is None or not fits or not bool(((clusters >= 0) & (clusters < self.subspaces)).all()):
            raise InterventionError(
                f"{self.site}: its clusters are not {features} whole numbers (int16) from 0 to {self.subspaces - 1}; write the "
                "recipe's factors anew by with_factors."
            )

    def check_factors(self, matrix: Tensor, tensors: Mapping[str, Tensor], *, tolerance: float) -> None:
        """Make sure that factors, where there are any, are those of a matrix, or of its clusters.

        Raises:
            InterventionError: they are not.
        """
        if "left" not in tensors:
            return
        if self.subspaces == 1:
            kept = range(self.rank((matrix.shape[0], matrix.shape[1])))
            refuse_no_components(matrix, tensors, kept, where=str(self.site), tolerance=tolerance)
            return
        parted = self._carried(tensors, matrix)
        refuse_factors_unless(lambda: parted.are_of(matrix, tolerance=tolerance), tensors, where=str(self.site))

    @full_precision()
    def edit(self, matrix: Tensor, *, decompose: Decompose, tensors: Mapping[str, Tensor]) -> Tensor:
        """Return the matrix at its reduced rank, (out, in), in its own dtype."""
        carried = "left" in tensors and "right" in tensors
        if self.subspaces > 1:
            parted = self._carried(tensors, matrix) if carried else self._parted(matrix, decompose)
            return parted.product().to(matrix.dtype)
        if carried:
            return (tensors["left"].to(matrix.device) @ tensors["right"].to(matrix.device)).to(matrix.dtype)
        rank = self.rank((matrix.shape[0], matrix.shape[1]))
        return without_components(matrix, decompose(matrix), range(rank, min(matrix.shape)))

    def output_shift(self, tensors: Mapping[str, Tensor]) -> None:
        """Return None: nothing stays behind of what is dropped."""

    def spectrum_scales(self, tensors: Mapping[str, Tensor], shape: Shape) -> Tensor | None:
        """Return 1 for each of the largest singular values that stay, and 0 for the others, (min(out, in),).

        None with several subspaces: what is left has other singular vectors.
        """
        return (torch.arange(min(shape)) < self.rank(shape)).float() if self.subspaces == 1 else None

    def kept_factors(self, matrix: Tensor, *, decompose: Decompose) -> tuple[Tensor, Tensor]:
        """Return (out, r) = U_r diag(σ_r) and (r, in) = V_rᵀ, whose product is the edited matrix; see `PartedFactors` for k > 1."""
        if self.subspaces > 1:
            parted = self._parted(matrix, decompose)
            return parted.left, parted.right
        left, right = decompose(matrix).factors_of(range(self.rank((matrix.shape[0], matrix.shape[1]))))
        return left.contiguous(), right.contiguous()

    def precomputed(self, matrix: Tensor, *, decompose: Decompose) -> dict[str, Tensor]:
        """Return the factors that are kept, as `left` and `right`; where clusters are no blocks, `clusters` as well."""
        if not self._carries_clusters:
            left, right = self.kept_factors(matrix, decompose=decompose)
            return {"left": left, "right": right}
        parted = self._parted(matrix, decompose)
        return {"left": parted.left, "right": parted.right, "clusters": parted.clusters.to(torch.int16)}

    def _parted(self, matrix: Tensor, decompose: Decompose) -> PartedFactors:
        rank = self.rank((matrix.shape[0], matrix.shape[1]))
        return parted_factors(
            matrix,
            subspaces=self.subspaces,
            rank=rank,
            axis=self.axis,
            partition=self.partition,
            decompose_block=decompose,
        )

    def _carried(self, tensors: Mapping[str, Tensor], matrix: Tensor) -> PartedFactors:
        """Return the factors among its tensors, on the matrix's device."""
        features = matrix.shape[0] if self.axis == "output" else matrix.shape[1]
        clusters = tensors["clusters"] if self._carries_clusters else equal_blocks(features, self.subspaces)
        left, right, clusters = (own.to(matrix.device) for own in (tensors["left"], tensors["right"], clusters))
        return PartedFactors(left, right, clusters, self.axis)

    def parameter_count(self, shape: Shape) -> int:
        """Return 0: it learns nothing."""
        return 0

    def initial_tensors(self, shape: Shape | int, *, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Return none: it learns nothing."""
        return {}

    def obstacle_to_baking(self, tensors: Mapping[str, Tensor]) -> None:
        """Return None: a checkpoint's weights can hold it."""

    def to_json(self, shape: Shape) -> dict[str, Any]:
        """Return what a recipe writes: the decision, with the rank it means for this matrix, and the size of several subspaces."""
        parted: dict[str, Any] = {}
        if self.subspaces > 1:
            parted = {"subspaces": self.subspaces, "numbers": self.numbers_kept(shape)}
            parted |= {"partition_bits": bits} if (bits := self.partition_bits(shape)) else {}
        for name, default in (("axis", "output"), ("partition", "block")):
            if (value := getattr(self, name)) != default:
                parted[name] = value
        return {
            "method": self.method,
            **self.site.to_json(),
            "rank_fraction": self.rank_fraction,
            "rank": self.rank(shape),
            **parted,
        }

    @classmethod
    def from_json(cls, entry: Entry) -> "RankReduction":
        """Return the intervention a recipe's entry describes."""
        own = {name: entry[name] for name in ("subspaces", "axis", "partition") if entry.get(name) is not None}
        return cls(WeightSite.from_json(entry), rank_fraction=float(entry["rank_fraction"]), **own)

    @classmethod
    def summarize(cls, entries: Sequence[Entry]) -> dict[int, str]:
        """Return a line for each reduction."""
        return {index: _line(entry) for index, entry in enumerate(entries)}

    @classmethod
    def brief(cls, entries: Sequence[Entry]) -> str:
        """Return the ranks a matrix, or its heads, are reduced to."""
        many = [f"{entry['subspaces']} x " if entry.get("subspaces", 1) > 1 else "" for entry in entries]
        return ", ".join(f"{times}rank {entry['rank']}" for times, entry in zip(many, entries, strict=True))


def _line(entry: Entry) -> str:
    stack = f"{entry['stack']} " if "stack" in entry else ""
    part = "".join(f" {name} {entry[name]}" for name in ("head", "expert") if name in entry)
    count = entry.get("subspaces", 1)
    where, size = "", ""
    if count > 1:
        where = f" in {_clusters(count, entry.get('axis', 'output'), entry.get('partition', 'block'))}"
        bits = f" and {entry['partition_bits']:,} bits" if "partition_bits" in entry else ""
        size = f": {entry['numbers']:,} numbers{bits}"
    return (
        f"{stack}layer {entry['layer']} {entry['matrix_type']}{part}: rank reduction to rank {entry['rank']}{where} "
        f"({100 * entry['rank_fraction']:.1f} % kept{size})"
    )


def _clusters(count: int, axis: str, partition: str) -> str:
    return f"each of {count} {'blocks' if partition == 'block' else 'clusters'} of {axis} features"
