"""Where a Decision Transformer keeps its matrices, and how it is scored."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch.nn import functional
from transformers import DecisionTransformerModel

from examples.sokoban.episodes import NO_ACTION, Episode, Sequences
from examples.sokoban.player import action_logits
from strop import Family, MatrixType, Spelling

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
