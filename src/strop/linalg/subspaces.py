"""Rows parted into clusters, each near a subspace of its own."""

import dataclasses
from collections import OrderedDict
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from strop.errors import DecompositionError, UsageError
from strop.linalg.fingerprint import fingerprint
from strop.linalg.precision import full_precision

STARTS = 4
"""Random partitions to begin with; the cheapest end is kept."""

MOST_STEPS = 30
"""Assignments a start, and then the best of them, is given to settle."""

MOST_KEPT = 512
"""Clusterings of this process that are remembered: one of a matrix of 4,096 rows takes 32 kB."""

_NEARER = 1e-9
"""By what share of its squared length a row must be nearer to another subspace to move: more than rounding makes of a tie."""

_kept: "OrderedDict[tuple[str, int, int, int, int], SubspaceClustering]" = OrderedDict()


@dataclasses.dataclass(frozen=True, eq=False)
class SubspaceClustering:
    """Which of k subspaces each row is nearest to."""

    clusters: Int[Tensor, " rows"]
    """From 0 to k − 1; on the rows' device."""
    costs: tuple[float, ...]
    """The squared distances of all rows to their subspaces, summed, after each assignment; they never rise."""


def equal_blocks(rows: int, count: int) -> Int[Tensor, " rows"]:
    """Return the cluster of each row where neighbours go together: `count` runs whose lengths differ by one at most.

    Args:
        rows: how many there are.
        count: of the clusters, from 1 to `rows`.

    Raises:
        UsageError: there are fewer rows than clusters, or no clusters.

    >>> equal_blocks(5, 2)
    tensor([0, 0, 0, 1, 1])
    """
    _refuse_count(rows, count)
    lengths = torch.tensor([len(own) for own in np.array_split(np.arange(rows), count)])
    return torch.repeat_interleave(torch.arange(count), lengths)


@full_precision()
def cluster_by_subspace(
    rows: Float[Tensor, "rows features"], *, count: int, rank: int, starts: int = STARTS, seed: int = 0
) -> SubspaceClustering:
    """Part rows into clusters, each with its own best subspace of one dimension j.

    minimise Σ_i min_c ‖x_i − F_cᵀF_c x_i‖² over orthonormal F_1 … F_k, each (j, features)
    (k-subspace clustering; MESSI, ICLR 2021, and after it arXiv 2510.20800)

    The subspaces go through the origin: what a matrix of rank j makes of rows has no constant part. Each start is a random
    equal partition, with the subspace of each part by a singular value decomposition. Then, in turn, every row goes to the
    subspace it is nearest to, and every subspace is fitted to its rows; one that has lost all of them stays as it is. While
    starts are compared, a fit is one step of the orthogonal iteration, which never raises the cost either; the cheapest start
    is then brought to rest by decompositions. All in float64, so that another machine's rounding moves no row, short of a
    tie. What was found is remembered for as long as the process lives.

    Args:
        rows: (rows, features), any floating dtype and device.
        count: k, how many clusters.
        rank: j, the dimension of each subspace.
        starts: how many random partitions to begin with.
        seed: of those.

    Raises:
        UsageError: there are fewer rows than clusters, or a number is out of its range.
        DecompositionError: the rows hold NaN or infinity.

    >>> along_two_axes = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 0.0], [0.0, 4.0]])
    >>> found = cluster_by_subspace(along_two_axes, count=2, rank=1).clusters
    >>> bool(found[0] == found[2] != found[1] == found[3])
    True
    """
    _refuse_count(len(rows), count)
    if not 0 <= rank <= rows.shape[1] or starts < 1:
        raise UsageError(
            f"A subspace of {rows.shape[1]} features has 0 to {rows.shape[1]} dimensions, not {rank}, and the starts are "
            f"1 or more, not {starts}."
        )
    if not torch.isfinite(rows).all():
        raise DecompositionError("The rows to cluster hold NaN or infinity.")
    asked = (fingerprint(rows), count, rank, starts, seed)
    found = _kept.get(asked)
    if found is None:
        found = _kept[asked] = _clustering(rows.detach(), count, rank, starts, seed)
        while len(_kept) > MOST_KEPT:
            _kept.popitem(last=False)
    return dataclasses.replace(found, clusters=found.clusters.to(rows.device, copy=True))


def _clustering(rows: Tensor, count: int, rank: int, starts: int, seed: int) -> SubspaceClustering:
    wide = (rows.cpu() if rows.device.type == "mps" else rows).double()  # no float64 there
    generator = np.random.default_rng(seed)
    ends = []
    for _ in range(starts):
        order = torch.from_numpy(generator.permutation(len(wide))).to(wide.device)
        parts = equal_blocks(len(wide), count).to(wide.device)[order]
        frames = torch.stack([_fitted(wide[parts == own], rank) for own in range(count)])
        ends.append(_settled(wide, frames, parts, (), _turned))
    frames, clusters, costs = min(ends, key=lambda end: end[2][-1])
    _, clusters, costs = _settled(wide, frames, clusters, costs, lambda own, frame: _fitted(own, frame.shape[1]))
    return SubspaceClustering(clusters.cpu(), costs)


def _settled(
    rows: Tensor,
    frames: Tensor,
    clusters: Tensor,
    costs: tuple[float, ...],
    refit: Callable[[Tensor, Tensor], Tensor],
) -> tuple[Tensor, Tensor, tuple[float, ...]]:
    """Return frames, clusters and all costs once no row moves any more, or too many assignments were made."""
    lengths = rows.square().sum(1)
    frames = frames.clone()
    for step in range(MOST_STEPS):
        held = torch.stack([(rows @ frame).square().sum(1) for frame in frames])  # of each row by each subspace
        most, nearest = held.max(0)
        moved = most - held.gather(0, clusters[None])[0] > _NEARER * lengths
        clusters = torch.where(moved, nearest, clusters)
        costs += (float((lengths - held.gather(0, clusters[None])[0]).clamp_min(0).sum()),)
        if step and not moved.any():
            break
        for own, frame in enumerate(frames):
            members = rows[clusters == own]
            if len(members):
                frames[own] = refit(members, frame)
    return frames, clusters, costs


def _turned(rows: Tensor, frame: Tensor) -> Tensor:
    """Return a frame, (features, rank), turned by one step of the orthogonal iteration towards the rows' largest components."""
    return _orthonormal(rows.T @ (rows @ frame))


def _fitted(rows: Tensor, rank: int) -> Tensor:
    """Return the frame of the rows' largest components, (features, rank); of fewer rows than that, one that holds them all."""
    count, features = rows.shape
    if count <= rank:
        more = torch.eye(features, rank - count, dtype=rows.dtype, device=rows.device)
        return _orthonormal(torch.cat([rows.T, more], dim=1))
    if count < features:
        return _orthonormal(rows.T @ _largest(rows @ rows.T, rank))
    return _largest(rows.T @ rows, rank)


def _largest(gram: Tensor, rank: int) -> Tensor:
    vectors: Tensor = torch.linalg.eigh(gram).eigenvectors
    return vectors[:, vectors.shape[1] - rank :]


def _orthonormal(columns: Tensor) -> Tensor:
    frame: Tensor = torch.linalg.qr(columns).Q
    return frame


def _refuse_count(rows: int, count: int) -> None:
    if not 1 <= count <= rows:
        raise UsageError(f"{rows} rows are parted into 1 to {rows} clusters, not {count}.")
