"""Hidden states below the lowest edit: they never change, so they are read once and reused in every epoch."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from strop.anatomy import (
    Anatomy,
    Site,
    evaluating,
    hidden_states_entering,
    hidden_states_made_by,
    input_device,
)
from strop.interventions import prompt_lengths
from strop.progress import Progress
from strop.scoring import Resources
from strop.training.sequences import TrainSequence, collate

OTHER_HEADS = ("classifier", "summary", "pooler", "cls")
"""How the settings of heads begin that a causal language model does not have."""


class PrefixStates:
    """The hidden states at the lowest edit, kept for as many sequences as a budget holds; the others are read anew.

    Sequences are read in batches of like length, always the same ones, so that a training that is resumed sees the same
    numbers to the last bit.

    Args:
        model: whose blocks below the edit are the same in every epoch.
        anatomy: of that model.
        lowest: where the lowest edit that learns is. A block's output is edited after the block: it has run by then, and
            what it made is kept.
    """

    def __init__(self, model: PreTrainedModel, anatomy: Anatomy, *, lowest: Site) -> None:
        resumes = anatomy.family.resumes
        self.raw = lowest.after_block and resumes
        self.start = lowest.layer + self.raw if resumes else 0
        self._model, self._anatomy, self._layer = model, anatomy, lowest.layer if resumes else 0
        self._states: dict[int, Tensor] = {}

    @classmethod
    def read(
        cls,
        model: PreTrainedModel,
        anatomy: Anatomy,
        sequences: Sequence[TrainSequence],
        *,
        lowest: Site,
        budget_bytes: int,
        progress: Progress,
    ) -> "PrefixStates":
        """Run what lies below the lowest edit once on each sequence, the shortest first, until the budget is used up."""
        prefix = cls(model, anatomy, lowest=lowest)
        size = anatomy.hidden_size * model.dtype.itemsize
        order = sorted(range(len(sequences)), key=lambda index: (len(sequences[index].ids), index))
        batches: list[list[int]] = []
        batch_tokens = Resources.of(model).batch_tokens
        used_bytes = 0
        for index in order:
            length = len(sequences[index].ids) - 1
            used_bytes += length * size
            if used_bytes > budget_bytes:
                break
            if not batches or (len(batches[-1]) + 1) * length > batch_tokens:
                batches.append([])
            batches[-1].append(index)
        progress.start("reading what no edit changes", len(batches))
        for batch in batches:
            tensors = collate([{"index": index, "sequence": sequences[index]} for index in batch])
            found = prefix._read(tensors["input_ids"].to(input_device(model)), tensors["prompt_lengths"])
            for row, index in enumerate(batch):
                prefix._states[index] = found[row, : len(sequences[index].ids) - 1].clone()
            progress.advance()
        return prefix

    def batch(self, index: Tensor, input_ids: Tensor, prompts: Tensor) -> Tensor:
        """Return the states of a batch, (batch, tokens, hidden).

        Args:
            index: (batch,), of the sequences.
            input_ids: (batch, tokens), padded on the right.
            prompts: (batch,), tokens of each prompt.
        """
        members = index.tolist()
        missing = [row for row, member in enumerate(members) if member not in self._states]
        if len(missing) == len(members):
            return self._read(input_ids, prompts).to(input_ids.device)
        kept = [member for member in members if member in self._states]
        first = self._states[kept[0]]
        padded = first.new_zeros(*input_ids.shape, first.shape[-1], device=input_ids.device)
        for row, member in enumerate(members):
            if member in self._states:
                padded[row, : self._states[member].shape[0]] = self._states[member]
        if missing:
            padded[missing] = self._read(input_ids[missing], prompts[missing])
        return padded

    def _read(self, input_ids: Tensor, prompts: Tensor) -> Tensor:
        find = hidden_states_made_by if self.raw else hidden_states_entering
        with evaluating(self._model), torch.no_grad(), prompt_lengths(prompts):
            return find(self._model, self._anatomy, input_ids, layer=self._layer)


def begun_by(prefix: PrefixStates | None, inputs: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return what lets `logits_at` go on from states below the lowest edit: nothing where none are kept.

    Args:
        prefix: what is kept; None for nothing.
        inputs: a batch's `index`, `input_ids`, and `prompt_lengths`.
    """
    if prefix is None:
        return {}
    state = prefix.batch(inputs["index"], inputs["input_ids"], inputs["prompt_lengths"])
    return {"start": prefix.start, "state": state, "raw": prefix.raw}


def worth_keeping(model: PreTrainedModel, *, lowest: Site, epochs: int) -> bool:
    """Return whether something lies below the lowest edit, is the same in every epoch, and is read more than once."""
    drops = any(isinstance(module, torch.nn.Dropout) and module.p > 0 for module in model.modules())
    settings = model.config.to_dict()
    drops |= any(
        "drop" in name and not name.startswith(OTHER_HEADS) and isinstance(value, float) and value > 0
        for name, value in settings.items()
    )
    return (lowest.layer > 0 or lowest.after_block) and epochs > 1 and not drops
