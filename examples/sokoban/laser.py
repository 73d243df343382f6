"""LASER on a model that is no language model: the matrices are Strop's to find and reduce, the score is the world's own."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch.nn import functional
from transformers import DecisionTransformerModel

from examples.sokoban.episodes import NO_ACTION, Episode, Sequences
from examples.sokoban.player import action_logits
from strop import Anatomy, Family, MatrixType, RankReduction, Spelling
from strop.interventions import applied_interventions
from strop.linalg import DecompositionCache, rank_for_fraction
from strop.searching.laser import LASER_RANK_FRACTIONS

_QKV = (MatrixType.QUERY, MatrixType.KEY, MatrixType.VALUE)
_FUSED = Spelling("attn.c_attn", packing="stacked", packed=_QKV, transposed=True)

DECISION_TRANSFORMER = Family(
    name="Decision Transformer",
    model_types=("decision_transformer",),
    blocks="encoder.h",
    matrices={
        **dict.fromkeys(_QKV, _FUSED),
        MatrixType.OUTPUT: Spelling("attn.c_proj", transposed=True),
        MatrixType.UP: Spelling("mlp.c_fc", transposed=True),
        MatrixType.DOWN: Spelling("mlp.c_proj", transposed=True),
    },
)
"""GPT-2's blocks in a list of another name."""


@dataclasses.dataclass(frozen=True, eq=False)
class ActionScores:
    """How a model does at every step of episodes the solver played, in their order."""

    correct: NDArray[np.bool_]
    """(steps,): whether its likeliest action is on a shortest solution."""
    loss: NDArray[np.float64]
    """(steps,): −log p of the solver's action, in nats."""
    rooms: NDArray[np.int64]
    """(steps,): the room of each."""

    @classmethod
    def of(cls, model: DecisionTransformerModel, episodes: Sequence[Episode], sequences: Sequences) -> "ActionScores":
        """Score a model at every step.

        Args:
            model: to be scored.
            episodes: the solver's.
            sequences: the same, as the model reads them.
        """
        played = sequences.actions != NO_ACTION
        logits = action_logits(model, sequences)[played].double()
        loss = functional.cross_entropy(logits, sequences.actions[played], reduction="none")
        best = [best for episode in episodes for best in episode.best]
        correct = [action in allowed for action, allowed in zip(logits.argmax(-1).tolist(), best, strict=True)]
        rooms = [episode.room for episode in episodes for _ in episode.actions]
        return cls(np.array(correct), loss.numpy(), np.array(rooms))

    @property
    def merit(self) -> tuple[float, float]:
        """What a choice maximises: accuracy, and of equals the lower loss."""
        return float(self.correct.mean()), -float(self.loss.mean())


def candidates(model: DecisionTransformerModel, anatomy: Anatomy) -> list[RankReduction]:
    """Return every matrix at every rank of LASER's grid, each rank once."""
    found = []
    for site in anatomy.sites():
        shape = tuple(anatomy.read_weight(model, site).shape)
        by_rank = {rank_for_fraction(fraction, (shape[0], shape[1])): fraction for fraction in LASER_RANK_FRACTIONS}
        found += [RankReduction(site, rank_fraction=fraction) for fraction in by_rank.values()]
    return found


def best_reduction(
    model: DecisionTransformerModel, episodes: Sequence[Episode]
) -> tuple[RankReduction | None, list[tuple[RankReduction, tuple[float, float]]]]:
    """Return the rank reduction with which a model is most often right, None where none beats the model, and all tried.

    Args:
        model: left as it was.
        episodes: to choose by.
    """
    anatomy, decompose = Anatomy.of(model, family=DECISION_TRANSFORMER), DecompositionCache().decompose
    sequences = Sequences.of(episodes)
    tried = []
    for reduction in candidates(model, anatomy):
        with applied_interventions(model, [reduction], anatomy=anatomy, decompose=decompose):
            tried.append((reduction, ActionScores.of(model, episodes, sequences).merit))
    best, merit = max(tried, key=lambda entry: entry[1])
    return (best if merit > ActionScores.of(model, episodes, sequences).merit else None), tried
