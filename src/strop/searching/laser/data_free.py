"""What spectra alone propose: no gradient, and no example of anything."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

from torch import Tensor

from strop.anatomy import WeightSite
from strop.interventions import RankReduction
from strop.linalg import fraction_for_rank, noise_threshold, signal_to_noise
from strop.searching.laser.candidates import Shapes, distinct_ranks


@dataclasses.dataclass(frozen=True)
class Proposal:
    """What spectra propose."""

    candidates: tuple[RankReduction, ...]
    """Matrix by matrix, the lowest ratio of signal to noise first."""
    left_out: str
    """Which matrices have no such ratio, in a few words; empty where all have one."""


def spectral_candidates(
    spectra: Mapping[WeightSite, Tensor],
    shapes: Shapes,
    *,
    top_matrices: int,
    rank_fractions: Sequence[float] | None = None,
) -> Proposal:
    """Return the few matrices with least signal for their noise, each cut to what stands above its threshold.

    A matrix of whose values all, or none, stand above the threshold says nothing of signal and noise, and is left out; so is
    one that is zero.

    Args:
        spectra: singular values (rank,), by site.
        shapes: of the matrices to consider, by site.
        top_matrices: how many matrices to try.
        rank_fractions: shares of the rank to try in the place of what stands above the threshold.
    """
    found: list[tuple[float, WeightSite, int]] = []
    none = every = 0
    for site, shape in shapes.items():
        threshold = noise_threshold(spectra[site], shape)
        ratio, rank = signal_to_noise(spectra[site], threshold), int((spectra[site].double() > threshold).sum())
        if math.isnan(ratio) or rank == 0:
            none += 1
        elif rank == min(shape):
            every += 1
        else:
            found.append((ratio, site, rank))
    found.sort(key=lambda entry: entry[:2])
    candidates = [
        RankReduction(site, fraction)
        for _, site, rank in found[:top_matrices]
        for fraction in (
            [fraction_for_rank(rank, shapes[site])]
            if rank_fractions is None
            else distinct_ranks(rank_fractions, shapes[site])
        )
    ]
    return Proposal(tuple(candidates), _left_out(len(shapes), none=none, every=every))


def _left_out(count: int, *, none: int, every: int) -> str:
    parts = [f"{none} with nothing above the threshold"] * bool(none) + [f"{every} with nothing below it"] * bool(every)
    return f"of {count} matrices, {' and '.join(parts)} left out" if parts else ""
