"""Keeping to the base: what drifting from it costs while edits learn."""

import weakref
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from strop.anatomy import Anatomy, Site, evaluating, hidden_states_entering, input_device, logits_at
from strop.interventions import prompt_lengths
from strop.progress import Progress
from strop.scoring import Resources, Texts, head_in_float32, log_probabilities
from strop.training.prefix_states import PrefixStates, begun_by, worth_keeping
from strop.training.sequences import Item, TrainSequence, collate

_LAST_READ: weakref.WeakKeyDictionary[PreTrainedModel, tuple[object, list[Tensor]]] = weakref.WeakKeyDictionary()
"""For a model, what was last read of it: of which texts, as which model, and what left its last block."""


def read_by(model: PreTrainedModel, fingerprint: str, precision: str) -> str:
    """Return what tells apart who reads texts: two that are equal say the same of the same texts.

    Args:
        model: as it is before any edit.
        fingerprint: of its weights.
        precision: what it computes in.
    """
    return f"{fingerprint} in {model.dtype}, {precision} on {input_device(model)}"


class KeepToBase:
    """Texts on which an edited model is held to what its base says.

    λ KL(base ‖ edited), the mean over the tokens that follow the first half of each text, the whole distribution counted. On
    text that the base samples from its own start the mean is an unbiased estimate of how far apart the two models are
    (arXiv 2505.13811). Of the base only what leaves its last block is kept; its norm and its LM head make logits of it again.

    Args:
        model: as it is before any edit; it is read at once.
        anatomy: of that model.
        texts: what it is held to; none that drift is measured on.
        weight: λ, per nat.
        per_pass: texts that each pass draws, from torch's own source of randomness.
        read_as: see `read_by`: what was said of the same texts before is not asked again.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        anatomy: Anatomy,
        texts: Sequence[Texts],
        *,
        weight: float,
        per_pass: int,
        read_as: str | None = None,
    ) -> None:
        self._model, self._anatomy, self._weight = model, anatomy, weight
        self._sequences = [TrainSequence(tuple(row.tolist()), part.prompt_tokens) for part in texts for row in part.ids]
        self._per_pass = min(per_pass, len(self._sequences))
        self._prefix: PrefixStates | None = None
        known = (read_as, tuple(self._sequences)) if read_as is not None else None
        last = _LAST_READ.get(model)
        self._base: list[Tensor] = last[1] if known is not None and last is not None and last[0] == known else []
        if self._base:
            return
        with torch.no_grad(), evaluating(model):
            for first in range(0, len(self._sequences), rows := _rows_of(model, self._sequences)):
                self._base += self._leaving(range(first, min(first + rows, len(self._sequences))))
        if known is not None:
            _LAST_READ[model] = known, self._base

    @property
    def tokens_per_pass(self) -> int:
        """Tokens that each pass reads on top of the task's, at most."""
        return self._per_pass * max(len(sequence.ids) for sequence in self._sequences)

    def keep_below(self, lowest: Site, *, budget_bytes: int, progress: Progress) -> None:
        """Read the hidden states below the lowest edit once.

        Args:
            lowest: where the lowest edit that learns is.
            budget_bytes: most memory for them.
            progress: told of each batch.
        """
        if budget_bytes and worth_keeping(self._model, lowest=lowest, epochs=2):
            self._prefix = PrefixStates.read(
                self._model,
                self._anatomy,
                self._sequences,
                lowest=lowest,
                budget_bytes=budget_bytes,
                progress=progress,
            )

    def cost(self) -> Tensor:
        """Return λ KL(base ‖ edited) on some texts, differentiable in whatever in the model learns.

        Nothing is dropped at random, for the base dropped nothing either.
        """
        drawn = torch.randperm(len(self._sequences))[: self._per_pass].tolist()
        batch = self._batch(drawn)
        device = input_device(self._model)
        ids = batch["input_ids"].to(device)
        rows, columns = (batch["labels"] != -100).nonzero(as_tuple=True)
        with evaluating(self._model), prompt_lengths(batch["prompt_lengths"]), head_in_float32(self._model):
            logits = logits_at(
                self._model,
                self._anatomy,
                ids,
                rows.to(device),
                (columns - 1).to(device),
                **begun_by(self._prefix, {**batch, "input_ids": ids}),
            )
        edited = logits.float().log_softmax(-1)
        with torch.no_grad():
            left = torch.cat([self._base[index] for index in drawn]).to(device)
            base = log_probabilities(self._model, self._anatomy, left).to(edited.device)
        return self._weight * nn.functional.kl_div(edited, base, log_target=True, reduction="batchmean")

    def _leaving(self, members: Sequence[int]) -> list[Tensor]:
        """Return what leaves the last block at the places that are compared, for each text (places, hidden)."""
        batch = self._batch(members)
        with prompt_lengths(batch["prompt_lengths"]):
            left = hidden_states_entering(
                self._model,
                self._anatomy,
                batch["input_ids"].to(input_device(self._model)),
                layer=self._anatomy.layer_count,
            ).cpu()
        own = [self._sequences[index] for index in members]
        return [left[row, text.prompt_length - 1 : len(text.ids) - 1].clone() for row, text in enumerate(own)]

    def _batch(self, members: Sequence[int]) -> dict[str, Tensor]:
        items: list[Item] = [{"index": index, "sequence": self._sequences[index]} for index in members]
        return collate(items)


def _rows_of(model: PreTrainedModel, sequences: Sequence[TrainSequence]) -> int:
    """Return how many of the texts are read together."""
    return max(1, Resources.of(model).batch_tokens // max(len(sequence.ids) for sequence in sequences))
