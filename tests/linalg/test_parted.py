"""Matrices of parted features: each cluster's best of low rank, by numpy; the size of all factors; one cluster is the whole."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.fixtures.matrices import gaussian, law
from torch import Tensor

from strop.errors import UsageError
from strop.linalg import Axis, PartedFactors, Partition, decompose, parted_factors, rank_per_subspace
from strop.linalg.subspaces import cluster_by_subspace

axes = pytest.mark.parametrize("axis", ["output", "input"])
partitions = pytest.mark.parametrize("partition", ["block", "subspace"])


def by_hand(matrix: Tensor, clusters: Tensor, rank: int, axis: Axis) -> Tensor:
    """Each cluster truncated by numpy, in float64."""
    rows = matrix.double().numpy() if axis == "output" else matrix.double().numpy().T
    whole = np.zeros_like(rows)
    for own in clusters.unique().tolist():
        places = np.flatnonzero(clusters.numpy() == own)
        u, s, vt = np.linalg.svd(rows[places], full_matrices=False)
        whole[places] = (u[:, :rank] * s[:rank]) @ vt[:rank]
    return torch.from_numpy(whole if axis == "output" else whole.T.copy()).float()


@partitions
@axes
@pytest.mark.parametrize("shape", [(24, 10), (10, 24), (13, 13)])
def test_every_cluster_gives_way_to_its_best_of_low_rank(
    shape: tuple[int, int], axis: Axis, partition: Partition
) -> None:
    matrix = gaussian(*shape, seed=1)
    found = parted_factors(matrix, subspaces=3, rank=2, axis=axis, partition=partition)
    torch.testing.assert_close(found.product(), by_hand(matrix, found.clusters, 2, axis), atol=1e-5, rtol=0)
    assert found.left.shape == ((shape[0], 2) if axis == "output" else (shape[0], 6))
    assert found.right.shape == ((6, shape[1]) if axis == "output" else (2, shape[1]))
    assert found.rank == 2
    assert found.are_of(matrix, tolerance=1e-4)


@axes
def test_subspaces_that_were_planted_are_kept_whole_where_blocks_are_not(axis: Axis) -> None:
    matrix = torch.zeros(40, 9)
    for own in range(2):
        matrix[own::2] = gaussian(20, 2, seed=own) @ gaussian(2, 9, seed=10 + own)
    matrix = matrix if axis == "output" else matrix.T.contiguous()
    near = parted_factors(matrix, subspaces=2, rank=2, axis=axis, partition="subspace")
    neighbours = parted_factors(matrix, subspaces=2, rank=2, axis=axis, partition="block")
    torch.testing.assert_close(near.product(), matrix, atol=1e-5, rtol=0)
    assert float((neighbours.product() - matrix).norm()) > 0.1 * float(matrix.norm())


@partitions
@axes
def test_one_cluster_is_the_whole_matrix_bit_for_bit(axis: Axis, partition: Partition) -> None:
    matrix = gaussian(12, 20, seed=2)
    found = parted_factors(matrix, subspaces=1, rank=5, axis=axis, partition=partition)
    left, right = decompose(matrix).factors_of(range(5))
    assert torch.equal(found.left, left)
    assert torch.equal(found.right, right)
    assert torch.equal(found.product(), left @ right)


@partitions
@axes
def test_a_cluster_of_fewer_features_than_the_rank_is_kept_whole(axis: Axis, partition: Partition) -> None:
    matrix = gaussian(5, 5, seed=3)
    found = parted_factors(matrix, subspaces=5, rank=3, axis=axis, partition=partition)
    assert torch.bincount(found.clusters).max() <= 3
    torch.testing.assert_close(found.product(), matrix, atol=1e-5, rtol=0)
    assert found.are_of(matrix, tolerance=1e-4)


@axes
def test_rank_zero_leaves_zeros(axis: Axis) -> None:
    found = parted_factors(gaussian(6, 4, seed=4), subspaces=2, rank=0, axis=axis, partition="subspace")
    assert found.product().shape == (6, 4)
    assert not found.product().any()


def test_half_precision_is_decomposed_in_float32_and_float64_in_float64() -> None:
    for dtype, kind in ((torch.bfloat16, torch.float32), (torch.float64, torch.float64)):
        matrix = gaussian(8, 6, seed=5).to(dtype)
        found = parted_factors(matrix, subspaces=2, rank=1, axis="output", partition="subspace")
        assert found.left.dtype == found.right.dtype == kind
        torch.testing.assert_close(
            found.product().float(), by_hand(matrix, found.clusters, 1, "output"), atol=1e-5, rtol=0
        )


def test_blocks_ask_for_the_decompositions_they_are_given_and_clusters_make_their_own() -> None:
    asked = []

    def counted(matrix: Tensor) -> object:
        asked.append(tuple(matrix.shape))
        return decompose(matrix)

    for partition in ("block", "subspace"):
        parted_factors(
            gaussian(9, 4, seed=6), subspaces=2, rank=1, axis="output", partition=partition, decompose_block=counted
        )
    assert asked == [(5, 4), (4, 4)]


@axes
@pytest.mark.parametrize("damage", ["left", "right", "clusters", "padding"])
def test_factors_of_another_matrix_or_other_clusters_are_told(axis: Axis, damage: str) -> None:
    matrix = gaussian(10, 8, seed=7)
    found = parted_factors(matrix, subspaces=4, rank=2, axis=axis, partition="block")
    left, right, clusters = found.left.clone(), found.right.clone(), found.clusters.clone()
    if damage == "left":
        left[0] += 0.1
    elif damage == "right":
        right = right.flip(0) if axis == "output" else -right.roll(1, 1)
    elif damage == "clusters":
        clusters[0], clusters[-1] = clusters[-1].clone(), clusters[0].clone()
    else:  # a cluster of one feature has nothing behind its one component
        clusters = torch.tensor([0, 1, 1, 1, 2, 2, 2, 3, 3, 3] if axis == "output" else [0, 1, 1, 2, 2, 2, 3, 3])
    assert not PartedFactors(left, right, clusters, axis).are_of(matrix, tolerance=1e-4)


@law
@given(st.integers(1, 80), st.integers(1, 80), st.integers(0, 80), st.integers(1, 16))
def test_factors_of_several_subspaces_are_as_large_as_the_plain_ones_or_a_little_smaller(
    rows: int, columns: int, rank: int, subspaces: int
) -> None:
    rank, subspaces = min(rank, rows, columns), min(subspaces, rows)
    own = rank_per_subspace(rank, (rows, columns), subspaces=subspaces, axis="output")
    size = lambda each: each * rows + subspaces * each * columns  # noqa: E731
    plain = rank * (rows + columns)
    assert size(own) <= plain < size(own + 1)
    assert own == rank_per_subspace(rank, (columns, rows), subspaces=subspaces, axis="input")
    assert rank_per_subspace(rank, (rows, columns), subspaces=1, axis="input") == rank


@pytest.mark.parametrize(("axis", "features"), [("output", 6), ("input", 4)])
def test_more_subspaces_than_features_are_refused(axis: Axis, features: int) -> None:
    said = f"A 6 x 4 matrix has {features} {axis} features, which make 1 to {features} subspaces, not 7"
    with pytest.raises(UsageError, match=said):
        rank_per_subspace(1, (6, 4), subspaces=7, axis=axis)
    with pytest.raises(UsageError, match=f"{features} rows are parted into 1 to {features} clusters, not 7"):
        parted_factors(gaussian(6, 4, seed=0), subspaces=7, rank=1, axis=axis, partition="subspace")


def test_columns_are_clustered_as_the_rows_of_the_transpose() -> None:
    matrix = gaussian(10, 14, seed=9)
    found = parted_factors(matrix, subspaces=2, rank=2, axis="input", partition="subspace")
    assert torch.equal(found.clusters, cluster_by_subspace(matrix.T, count=2, rank=2).clusters)
