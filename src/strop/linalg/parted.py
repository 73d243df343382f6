"""A matrix whose features on one side are parted into clusters, each of low rank on its own: block-sparse factors."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import pad

from strop.linalg.factors import are_components
from strop.linalg.precision import full_precision
from strop.linalg.rank import Axis
from strop.linalg.subspaces import cluster_by_subspace, equal_blocks
from strop.linalg.svd import SingularValueDecomposition, decompose

Partition = Literal["block", "subspace"]
"""How features are parted: neighbours together, or each with those that lie near one subspace."""


@dataclasses.dataclass(frozen=True, eq=False)
class Cluster:
    """One cluster of a matrix's features, with the factors of what is kept of it."""

    place: Any
    """What indexes its rows, or its columns, in the matrix."""
    left: Float[Tensor, "some rank"]
    right: Float[Tensor, "rank others"]


@dataclasses.dataclass(frozen=True, eq=False)
class PartedFactors:
    """k clusters of a matrix's features, each of rank j at most, without the zeros between them.

    Where rows are parted, `left` holds each row's coordinates, (out, j), and `right` the bases of the clusters one below the
    other, (k · j, in). Where columns are, `left` holds the bases side by side, (out, k · j), and `right` the coordinates,
    (j, in).
    """

    left: Float[Tensor, "out one"]
    right: Float[Tensor, "other in"]
    clusters: Int[Tensor, " features"]
    """Of each row, or of each column; from 0 to k − 1."""
    axis: Axis

    @property
    def rank(self) -> int:
        """The most that is kept of each cluster: j."""
        return self.left.shape[1] if self.axis == "output" else self.right.shape[0]

    def of_each_cluster(self) -> Iterator[Cluster]:
        """Yield the clusters that have features, the first one first."""
        for place, in_left, in_right in _places(self.clusters, self.rank, self.axis):
            yield Cluster(place, self.left[in_left], self.right[in_right])

    @full_precision()
    def product(self) -> Float[Tensor, "out in"]:
        """Return the matrix the factors stand for, (out, in)."""
        whole = self.left.new_zeros(self.left.shape[0], self.right.shape[1])
        for cluster in self.of_each_cluster():
            whole[cluster.place] = cluster.left @ cluster.right
        return whole

    def are_of(self, matrix: Float[Tensor, "out in"], *, tolerance: float) -> bool:
        """Return whether they are the largest components of each cluster of a matrix, with nothing behind a small cluster's own.

        Args:
            matrix: (out, in).
            tolerance: how far they may be off, as a share of the cluster's norm; see `are_components`.
        """
        for cluster in self.of_each_cluster():
            members = matrix[cluster.place]
            count = min(self.rank, *members.shape)
            if bool(cluster.left[:, count:].any()) or bool(cluster.right[count:].any()):
                return False
            left, right = cluster.left[:, :count], cluster.right[:count]
            if not are_components(members, left, right, range(count), tolerance=tolerance):
                return False
        return True


@full_precision()
def parted_factors(
    matrix: Float[Tensor, "out in"],
    *,
    subspaces: int,
    rank: int,
    axis: Axis,
    partition: Partition,
    decompose_block: Callable[[Tensor], SingularValueDecomposition] = decompose,
) -> PartedFactors:
    """Return the factors of a matrix of whose clusters of rows, or of columns, each gives way to its best of rank j.

    W[C_c] ← Σ_{i<j} σ_i u_i v_iᵀ of the decomposition of W[C_c], for each cluster C_c  (arXiv 2510.20800)

    Args:
        matrix: W, (out, in), any floating dtype and device.
        subspaces: k, how many clusters.
        rank: j, of each.
        axis: `output` parts the rows, `input` the columns.
        partition: `block` puts neighbours together; `subspace` clusters by `cluster_by_subspace`.
        decompose_block: how to come by the decompositions of blocks, each of which serves every rank.

    Returns:
        Factors in float32, or float64 where W is. A cluster of fewer than j features has zeros behind its own components.

    Raises:
        UsageError: there are fewer features than clusters.
        DecompositionError: the matrix holds NaN or infinity.

    >>> found = parted_factors(torch.eye(4), subspaces=2, rank=1, axis="output", partition="block")
    >>> tuple(found.left.shape), tuple(found.right.shape), int(found.product().sum())
    ((4, 1), (2, 4), 2)
    """
    clusters = _clusters_of(matrix if axis == "output" else matrix.T, subspaces, rank, partition)
    outputs, inputs = matrix.shape
    kind = matrix.dtype if matrix.dtype == torch.float64 else torch.float32
    bases = subspaces * rank
    left = matrix.new_zeros(outputs, bases if axis == "input" else rank, dtype=kind)
    right = matrix.new_zeros(bases if axis == "output" else rank, inputs, dtype=kind)
    for place, in_left, in_right in _places(clusters, rank, axis) if rank else ():
        found = (decompose_block if partition == "block" else decompose)(matrix[place])
        own_left, own_right = found.factors_of(range(min(rank, *found.shape)))
        left[in_left] = pad(own_left, (0, rank - own_left.shape[1]))
        right[in_right] = pad(own_right, (0, 0, 0, rank - own_right.shape[0]))
    return PartedFactors(left, right, clusters, axis)


def _clusters_of(rows: Tensor, subspaces: int, rank: int, partition: Partition) -> Tensor:
    if partition == "block" or rank == 0:
        return equal_blocks(len(rows), subspaces).to(rows.device)
    return cluster_by_subspace(rows, count=subspaces, rank=rank).clusters


def _places(clusters: Tensor, rank: int, axis: Axis) -> Iterator[tuple[Any, Any, Any]]:
    """Yield what indexes each cluster that has features in the matrix, in the left factor and in the right one."""
    for index in range(int(clusters.max()) + 1):
        features, own = (clusters == index).nonzero()[:, 0], slice(index * rank, (index + 1) * rank)
        if len(features) and axis == "output":
            yield features, features, own
        elif len(features):
            yield (slice(None), features), (slice(None), own), (slice(None), features)
