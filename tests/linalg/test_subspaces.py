"""Clustering rows by subspaces: planted clusters are found, the cost never rises, and tiny cases match all partitions."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.fixtures.matrices import gaussian, law, rotation, seeds
from torch import Tensor

from strop.errors import DecompositionError, UsageError
from strop.linalg import cluster_by_subspace, equal_blocks


def cost_of(rows: Tensor, clusters: list[int], count: int, rank: int) -> float:
    """What numpy's own decompositions leave of each cluster."""
    left = 0.0
    for own in range(count):
        members = rows.double().numpy()[np.array(clusters) == own]
        if len(members):
            left += float((np.linalg.svd(members, compute_uv=False)[rank:] ** 2).sum())
    return left


def planted(count: int, rank: int, *, each: int, features: int, noise: float, seed: int) -> tuple[Tensor, Tensor]:
    """Rows of so many subspaces in a random order, and which each is of."""
    generator = torch.Generator().manual_seed(seed)
    owner = torch.randperm(count * each, generator=generator) % count
    bases = torch.stack([rotation(features, 7 * seed + own)[:rank] for own in range(count)])
    coordinates = torch.randn(len(owner), rank, generator=generator, dtype=torch.float64)
    rows = torch.einsum("nr,nrf->nf", coordinates, bases[owner])
    return rows + noise * torch.randn(rows.shape, generator=generator, dtype=torch.float64), owner


@pytest.mark.parametrize(("count", "rank", "noise"), [(2, 1, 0.0), (3, 2, 0.01), (4, 3, 0.02), (5, 2, 0.0)])
def test_a_planted_partition_is_recovered(count: int, rank: int, noise: float) -> None:
    rows, owner = planted(count, rank, each=24, features=20, noise=noise, seed=count)
    found = cluster_by_subspace(rows.float(), count=count, rank=rank, starts=16)
    pairs = {(int(own), int(one)) for own, one in zip(found.clusters, owner, strict=True)}
    assert len(pairs) == count  # one name for another, and nothing else
    assert found.costs[-1] <= 1.05 * cost_of(rows, owner.tolist(), count, rank) + 1e-9


@law
@given(st.integers(3, 14), st.integers(2, 6), st.integers(1, 3), st.integers(1, 3), seeds)
def test_the_cost_never_rises_and_is_that_of_the_clusters(
    rows: int, features: int, count: int, rank: int, seed: int
) -> None:
    matrix = gaussian(rows, features, seed)
    rank = min(rank, features)
    found = cluster_by_subspace(matrix, count=count, rank=rank, seed=seed)
    slack = 1e-9 * float(matrix.double().square().sum())
    assert all(later <= earlier + slack for earlier, later in itertools.pairwise(found.costs))
    assert found.costs[-1] == pytest.approx(cost_of(matrix, found.clusters.tolist(), count, rank), abs=slack + 1e-9)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("count", "rank"), [(2, 1), (3, 1), (2, 2)])
def test_on_few_rows_no_partition_is_cheaper(count: int, rank: int, seed: int) -> None:
    rows = gaussian(7, 3, seed)
    best = min(cost_of(rows, list(own), count, rank) for own in itertools.product(range(count), repeat=7))
    found = cluster_by_subspace(rows, count=count, rank=rank, starts=64)
    assert found.costs[-1] == pytest.approx(best, rel=1e-6, abs=1e-9)


def test_no_row_is_nearer_to_another_subspace_in_the_end() -> None:
    rows = gaussian(60, 12, seed=3).double()
    found = cluster_by_subspace(rows, count=3, rank=2)
    bases = [torch.linalg.svd(rows[found.clusters == own]).Vh[:2] for own in range(3)]
    distances = torch.stack([(rows - rows @ basis.T @ basis).square().sum(1) for basis in bases])
    own = distances.gather(0, found.clusters[None])[0]
    assert bool((own <= distances.min(0).values + 1e-8).all())


def test_one_cluster_holds_every_row_and_costs_what_truncation_leaves() -> None:
    rows = gaussian(30, 12, seed=1)
    found = cluster_by_subspace(rows, count=1, rank=4)
    assert not found.clusters.any()
    tail = np.linalg.svd(rows.double().numpy(), compute_uv=False)[4:]
    assert found.costs[-1] == pytest.approx(float((tail**2).sum()), rel=1e-9)


def test_the_same_rows_are_parted_alike_whatever_rounds_them() -> None:
    rows = gaussian(80, 16, seed=5).double()
    found = cluster_by_subspace(rows, count=4, rank=3)
    again = cluster_by_subspace(rows * (1 + 1e-13 * gaussian(80, 16, seed=6).double()), count=4, rank=3)
    turned = cluster_by_subspace(rows @ rotation(16, seed=7), count=4, rank=3)  # other sums, the same distances
    assert torch.equal(found.clusters, again.clusters)
    assert torch.equal(found.clusters, turned.clusters)
    assert not torch.equal(found.clusters, cluster_by_subspace(rows, count=4, rank=3, seed=1).clusters)


def test_more_starts_are_never_worse() -> None:
    rows = gaussian(60, 10, seed=8)
    costs = [cluster_by_subspace(rows, count=4, rank=1, starts=starts).costs[-1] for starts in (1, 8)]
    assert costs[1] < costs[0]


def test_a_cluster_that_loses_all_its_rows_keeps_its_subspace() -> None:
    rows = torch.zeros(6, 4)
    rows[:, 0] = torch.arange(1.0, 7.0)  # one subspace holds them all
    found = cluster_by_subspace(rows, count=3, rank=1)
    assert found.costs[-1] == pytest.approx(0.0, abs=1e-12)
    assert set(found.clusters.tolist()) <= {0, 1, 2}


def test_what_was_found_is_remembered_and_cannot_be_changed_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = gaussian(20, 6, seed=9)
    first = cluster_by_subspace(rows, count=2, rank=1).clusters
    wanted = first.clone()
    first.zero_()

    def never(*_: object) -> None:
        raise AssertionError("it was computed again")

    monkeypatch.setattr("strop.linalg.subspaces._clustering", never)
    assert torch.equal(cluster_by_subspace(rows, count=2, rank=1).clusters, wanted)


@pytest.mark.parametrize(("rows", "count", "lengths"), [(8, 2, [4, 4]), (7, 3, [3, 2, 2]), (3, 3, [1, 1, 1])])
def test_blocks_are_runs_of_almost_one_length(rows: int, count: int, lengths: list[int]) -> None:
    found = equal_blocks(rows, count)
    assert torch.equal(found, found.sort().values)
    assert torch.bincount(found).tolist() == lengths


@pytest.mark.parametrize("count", [0, 6])
def test_more_clusters_than_rows_are_refused(count: int) -> None:
    said = f"5 rows are parted into 1 to 5 clusters, not {count}"
    with pytest.raises(UsageError, match=said):
        equal_blocks(5, count)
    with pytest.raises(UsageError, match=said):
        cluster_by_subspace(torch.ones(5, 3), count=count, rank=1)


def test_what_cannot_be_clustered_is_refused() -> None:
    with pytest.raises(UsageError, match="A subspace of 3 features has 0 to 3 dimensions, not 4"):
        cluster_by_subspace(torch.ones(5, 3), count=2, rank=4)
    with pytest.raises(DecompositionError, match="hold NaN or infinity"):
        cluster_by_subspace(torch.full((5, 3), torch.nan), count=2, rank=1)
