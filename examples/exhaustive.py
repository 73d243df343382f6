"""LASER on any model Strop can describe: try every matrix at every rank, and keep what scores best."""

from collections.abc import Callable

from transformers import PreTrainedModel

from strop import Anatomy, RankReduction
from strop.interventions import applied_interventions
from strop.linalg import DecompositionCache, rank_for_fraction
from strop.searching import LASER_RANK_FRACTIONS

Merit = tuple[float, float]
"""Accuracy, and of equals minus the loss: more is better."""


def candidates(model: PreTrainedModel, anatomy: Anatomy) -> list[RankReduction]:
    """Return every matrix at every rank of LASER's grid, each rank once.

    Args:
        model: whose matrices they are.
        anatomy: the model's.
    """
    found = []
    for site in anatomy.sites():
        rows, columns = anatomy.read_weight(model, site).shape
        by_rank = {rank_for_fraction(fraction, (rows, columns)): fraction for fraction in LASER_RANK_FRACTIONS}
        found += [RankReduction(site, rank_fraction=fraction) for fraction in by_rank.values()]
    return found


def best_reduction(
    model: PreTrainedModel, anatomy: Anatomy, merit: Callable[[], Merit]
) -> tuple[RankReduction | None, list[tuple[RankReduction, Merit]]]:
    """Return the rank reduction with which a model scores best, None where none beats the model, and all that were tried.

    Args:
        model: left as it was.
        anatomy: the model's.
        merit: scores the model as it is when called, on examples to choose by.
    """
    decompose = DecompositionCache().decompose
    tried = []
    for reduction in candidates(model, anatomy):
        with applied_interventions(model, [reduction], anatomy=anatomy, decompose=decompose):
            tried.append((reduction, merit()))
    best, most = max(tried, key=lambda entry: entry[1])
    return (best if most > merit() else None), tried
