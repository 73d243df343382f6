"""Which single edits to try."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import optuna
import torch

from strop.anatomy import MatrixType, Stack, WeightSite
from strop.errors import DecompositionError
from strop.interventions import RankReduction
from strop.linalg import fraction_for_rank, loss_change_by_rank, rank_for_fraction
from strop.proving import CandidateSpace, Trial
from strop.proving.trials import Setting
from strop.searching.effects import Effects

LADDER = (0.25, 1.0, 4.0, 16.0)
"""Multiples of the predicted best rank that are tried: first order overrates deep cuts, so it mostly goes up."""

ALWAYS = (0.01, 0.8)
"""Shares of the rank that are tried whatever is predicted: the deepest cut worth a look, and the mildest."""

C = TypeVar("C")
Shapes = Mapping[WeightSite, tuple[int, int]]


def all_candidates(shapes: Shapes, rank_fractions: Sequence[float]) -> list[RankReduction]:
    """Return every site at every rank fraction, equal ranks once.

    Args:
        shapes: of the matrices to consider, by site.
        rank_fractions: shares of the rank to keep.
    """
    return [
        RankReduction(site, fraction)
        for site, shape in shapes.items()
        for fraction in _distinct_ranks(rank_fractions, shape)
    ]


def predicted_candidates(
    effects: Mapping[WeightSite, Effects],
    shapes: Shapes,
    *,
    top_matrices: int,
    rank_fractions: Sequence[float] | None,
) -> list[RankReduction]:
    """Return the edits the gradient predicts to help most: the best few matrices, each at a small ladder of ranks.

    A matrix is ranked by the lowest loss change any rank is predicted to bring, min_k Σ_{i≥k} e_i. The ladder leads
    from below the rank that brings it up to a mild cut, unless rank fractions are given; then only those are considered.

    Args:
        effects: of every singular value, by site.
        shapes: of the matrices, by site.
        top_matrices: how many matrices to try.
        rank_fractions: the shares of the rank to keep; a ladder by default.

    Raises:
        DecompositionError: no matrix has finite effects.
    """
    if not any(torch.isfinite(effect.loss_change).all() for effect in effects.values()):
        raise DecompositionError(
            "The gradient is not finite for any matrix, so it cannot guide the search: load the model in float32 "
            "(--dtype float32), or search with strategy 'exhaustive' (--strategy exhaustive)."
        )
    best: list[tuple[float, WeightSite, list[float]]] = []
    for site, shape in shapes.items():
        change = loss_change_by_rank(effects[site].loss_change)[:-1].nan_to_num(nan=math.inf, neginf=math.inf)
        if rank_fractions is None:
            predicted = int(change.argmin())
            fractions = _ladder(predicted, shape)
            lowest = float(change[predicted])
        else:
            fractions = _distinct_ranks(rank_fractions, shape)
            lowest = min(float(change[rank_for_fraction(fraction, shape)]) for fraction in fractions)
        best.append((lowest, site, fractions))
    best.sort(key=lambda entry: (entry[0], entry[1]))
    return [RankReduction(site, fraction) for _, site, fractions in best[:top_matrices] for fraction in fractions]


def space_of(shapes: Shapes, layer_count: int) -> CandidateSpace[RankReduction]:
    """Return how single rank reductions are kept in a study.

    Args:
        shapes: of the matrices to consider, by site.
        layer_count: of the model.
    """
    distributions = optuna.distributions

    def spell(candidate: RankReduction) -> dict[str, Setting]:
        site = candidate.site
        rank = candidate.rank(shapes[site])
        return {**site.to_json(), "rank": rank, "rank_fraction": candidate.rank_fraction}

    def read(settings: Mapping[str, Any]) -> RankReduction:
        return RankReduction(WeightSite.from_json(settings), settings["rank_fraction"])

    return CandidateSpace(
        RankReduction.method,
        {
            "matrix_type": distributions.CategoricalDistribution([str(matrix_type) for matrix_type in MatrixType]),
            "layer": distributions.IntDistribution(0, layer_count - 1),
            "expert": distributions.IntDistribution(0, 10**6),
            "stack": distributions.CategoricalDistribution([str(stack) for stack in Stack]),
            "rank": distributions.IntDistribution(0, max(min(shape) for shape in shapes.values())),
            "rank_fraction": distributions.FloatDistribution(0.0, 1.0),
        },
        spell,
        read,
    )


def best_of(trials: Mapping[C, Trial], count: int) -> list[C]:
    """Return the candidates that did best in a screening, half of them by accuracy and half by loss.

    Few examples tell little about accuracy, and loss, which they tell more about, is not what is wanted: so both speak.

    Args:
        trials: on the same examples.
        count: how many candidates to return.
    """
    by_accuracy = sorted(trials, key=lambda candidate: trials[candidate].merit, reverse=True)
    by_loss = sorted(trials, key=lambda candidate: trials[candidate].merit[1], reverse=True)
    in_turn = [candidate for pair in zip(by_accuracy, by_loss, strict=True) for candidate in pair]
    return list(dict.fromkeys(in_turn))[:count]


def _ladder(predicted: int, shape: tuple[int, int]) -> list[float]:
    always = {max(1, rank_for_fraction(fraction, shape)) for fraction in ALWAYS}
    rungs = {max(1, round(max(predicted, min(always)) * multiple)) for multiple in LADDER}
    return [fraction_for_rank(rank, shape) for rank in sorted(always | rungs) if rank <= max(always)]


def _distinct_ranks(rank_fractions: Sequence[float], shape: tuple[int, int]) -> list[float]:
    by_rank: dict[int, float] = {}
    for fraction in sorted(rank_fractions):
        by_rank.setdefault(rank_for_fraction(fraction, shape), fraction)
    return list(by_rank.values())
