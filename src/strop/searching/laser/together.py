"""Candidates that several workers score between them, each going up the layers that fall to it."""

from collections.abc import Hashable, Mapping

from strop.interventions import RankReduction
from strop.interventions.interfaces import Decompose
from strop.proving import TrialKey, Turns
from strop.scoring import ClassScorer, Scorer
from strop.searching.laser.sweep import sweep


def layer_of(key: TrialKey) -> Hashable:
    """Return which candidates are best scored by one worker: those of a layer have the states that enter it in common.

    Args:
        key: of a candidate's trial.
    """
    return key.candidate.get("stack"), key.candidate["layer"]


def score_in_turn(
    turns: Turns, candidates: Mapping[TrialKey, RankReduction], scorer: Scorer | ClassScorer, *, decompose: Decompose
) -> None:
    """Score the candidates that fall to this worker, on the model as it stands.

    Args:
        turns: hands out the keys of trials.
        candidates: by key.
        scorer: the examples.
        decompose: how to come by decompositions.
    """
    for _, score in sweep(scorer, map(candidates.__getitem__, turns), decompose=decompose):
        turns.measure(score)
