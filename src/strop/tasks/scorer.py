"""Score a set of examples on a model, whole or from a block on."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from strop.anatomy import Anatomy, evaluating, hidden_states_entering, input_device, logits_at
from strop.errors import UsageError
from strop.progress import SILENT, Progress
from strop.tasks.encoding import Batch, batches_of, encode
from strop.tasks.evaluation import Evaluation
from strop.tasks.examples import Example
from strop.tasks.task_file import Score


def refuse_generation(score: Score) -> None:
    """Raise UsageError for a score that this version cannot measure."""
    if score == "generate":
        raise UsageError(
            "score: generate is not measured by this version; use exact, first_token, choice or perplexity."
        )


class Scorer:
    """Examples encoded once, ready to be scored on a model as often as its weights change.

    Args:
        model: a causal language model.
        tokenizer: its fast tokenizer.
        examples: to be scored, in this order.
        score: the task's.
        anatomy: the model's, where it is at hand.

    Raises:
        TaskError: a row does not fit the model.
        UsageError: there are no examples, or the score needs generation.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        examples: Sequence[Example],
        score: Score,
        *,
        anatomy: Anatomy | None = None,
    ) -> None:
        refuse_generation(score)
        if not examples:
            raise UsageError("There are no examples to score.")
        self.model = model
        self.anatomy = anatomy or Anatomy.of(model)
        self.score: Score = score
        self.example_count = len(examples)
        longest = getattr(model.config, "max_position_embeddings", None) or 10**9
        self._sequences = encode(examples, tokenizer, score, longest=longest)
        self.batches = batches_of(self._sequences, score, device=input_device(model))
        self._answers = [
            example.choices.index(example.answer) if score == "choice" and example.choices else 0
            for example in examples
        ]

    @property
    def tokens(self) -> int:
        """Tokens of one whole pass, padding included."""
        return sum(batch.input_ids.numel() for batch in self.batches)

    @property
    def state_bytes(self) -> int:
        """Size of the hidden states one call of `states_entering` returns."""
        return int(self.tokens * self.anatomy.hidden_size * self.model.dtype.itemsize)

    @torch.inference_mode()
    def states_entering(
        self, layer: int, *, start: int = 0, states: Sequence[Tensor] | None = None, progress: Progress = SILENT
    ) -> list[Tensor]:
        """Return for each batch the hidden states that enter block `layer`, going on from `states`.

        Args:
            layer: the block to stop before.
            start: the block `states` enter.
            states: what an earlier call returned; None starts from the embeddings.
            progress: told of each batch.
        """
        entering = []
        with evaluating(self.model):
            for index, batch in enumerate(self.batches):
                state = states[index] if states is not None else None
                entering.append(
                    hidden_states_entering(
                        self.model, self.anatomy, batch.input_ids, layer=layer, start=start, state=state
                    )
                )
                progress.advance()
        return entering

    @torch.inference_mode()
    def evaluate(
        self, *, start: int = 0, states: Sequence[Tensor] | None = None, progress: Progress = SILENT
    ) -> Evaluation:
        """Score every example, running only blocks `start` and above.

        Args:
            start: the block `states` enter; 0 runs the whole model.
            states: from `states_entering`; needed where `start` is above 0.
            progress: told of each batch.
        """
        log_probability = np.zeros(len(self._sequences))
        all_first = np.ones(len(self._sequences), dtype=bool)
        counted = np.zeros(len(self._sequences), dtype=np.int64)
        rank = np.zeros(len(self._sequences), dtype=np.int64)
        with evaluating(self.model):
            for index, batch in enumerate(self.batches):
                state = states[index] if states is not None else None
                logits = logits_at(
                    self.model, self.anatomy, batch.input_ids, batch.rows, batch.columns, start=start, state=state
                )
                own, first, likelier = _score_positions(logits, batch, ranks=self.score == "first_token")
                where = np.asarray(batch.members)[batch.rows.cpu().numpy()]
                np.add.at(log_probability, where, own)
                np.add.at(counted, where, 1)
                np.logical_and.at(all_first, where, first)
                rank[where] = likelier
                progress.advance()
        return self._gather(log_probability, all_first, counted, rank)

    def _gather(
        self,
        log_probability: NDArray[np.float64],
        all_first: NDArray[np.bool_],
        counted: NDArray[np.int64],
        rank: NDArray[np.int64],
    ) -> Evaluation:
        owner = np.array([sequence.owner for sequence in self._sequences])
        if self.score == "choice":
            first_of = np.searchsorted(owner, np.arange(self.example_count))
            right = first_of + np.array(self._answers)
            of_each = np.split(log_probability, first_of[1:])
            best = [first + int(own.argmax()) for first, own in zip(first_of, of_each, strict=True)]
            return Evaluation(
                "choice", -log_probability[right] / counted[right], counted[right], np.array(best) == right
            )
        loss = -log_probability / counted
        if self.score == "perplexity":
            return Evaluation("perplexity", loss, counted)
        return Evaluation(self.score, loss, counted, all_first, rank if self.score == "first_token" else None)


def _score_positions(
    logits: Tensor, batch: Batch, *, ranks: bool
) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.int64]]:
    """Return for each position its target's log p, whether it is the arg max, and how many tokens are likelier."""
    targets = batch.targets.to(logits.device)
    logits = logits.float()
    own = logits.gather(-1, targets[:, None])[:, 0]
    log_probability = own.cpu().double() - logits.logsumexp(-1).cpu().double()
    first = logits.argmax(-1) == targets
    likelier = (logits > own[:, None]).sum(-1) if ranks else torch.zeros_like(targets)
    return log_probability.numpy(), first.cpu().numpy(), likelier.cpu().numpy()
