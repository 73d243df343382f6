"""Hidden states below the lowest edit: they never change, so they are read once and reused in every epoch."""

from collections.abc import Sequence
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
    """The hidden states at the lowest edit, for as many sequences as a budget holds.

    Sequences are read in batches of like length, always the same ones, so that a training that is resumed sees the same
    numbers to the last bit.

    Args:
        start: the block from which on the model is run.
        raw: the states are what the block before it made, still to be edited; else what enters it.
        states: for a sequence's index (tokens, hidden), in the model's dtype.
    """

    def __init__(self, start: int, *, raw: bool, states: dict[int, Tensor]) -> None:
        self.start, self.raw = start, raw
        self._states = states

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
        """Run what lies below the lowest edit once on each sequence, the shortest first, until the budget is used up.

        A block's output is edited after the block: it has run by then, and what it made is kept.
        """
        raw = lowest.after_block
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
        kept: dict[int, Tensor] = {}
        with evaluating(model), torch.no_grad():
            for batch in batches:
                tensors = collate([{"index": index, "sequence": sequences[index]} for index in batch])
                with prompt_lengths(tensors["prompt_lengths"]):
                    find = hidden_states_made_by if raw else hidden_states_entering
                    found = find(model, anatomy, tensors["input_ids"].to(input_device(model)), layer=lowest.layer)
                for row, index in enumerate(batch):
                    kept[index] = found[row, : len(sequences[index].ids) - 1].clone()
                progress.advance()
        return cls(lowest.layer + raw, raw=raw, states=kept)

    def batch(self, index: Tensor, tokens: int) -> Tensor | None:
        """Return the states of a batch, (batch, tokens, hidden), zeros at the padding; None if one is not kept."""
        members = index.tolist()
        if any(member not in self._states for member in members):
            return None
        first = self._states[members[0]]
        padded = first.new_zeros(len(members), tokens, first.shape[-1])
        for row, member in enumerate(members):
            padded[row, : self._states[member].shape[0]] = self._states[member]
        return padded


def begun_by(prefix: PrefixStates | None, index: Tensor, input_ids: Tensor) -> dict[str, Any]:
    """Return what lets `logits_at` go on from states that are kept: nothing where there are none of a batch.

    Args:
        prefix: what is kept; None for nothing.
        index: (batch,), of the sequences.
        input_ids: (batch, tokens).
    """
    state = prefix.batch(index, input_ids.shape[1]) if prefix is not None else None
    if prefix is None or state is None:
        return {}
    return {"start": prefix.start, "state": state.to(input_ids.device), "raw": prefix.raw}


def worth_keeping(model: PreTrainedModel, *, lowest: Site, epochs: int) -> bool:
    """Return whether something lies below the lowest edit, is the same in every epoch, and is read more than once."""
    drops = any(isinstance(module, torch.nn.Dropout) and module.p > 0 for module in model.modules())
    settings = model.config.to_dict()
    drops |= any(
        "drop" in name and not name.startswith(OTHER_HEADS) and isinstance(value, float) and value > 0
        for name, value in settings.items()
    )
    return (lowest.layer > 0 or lowest.after_block) and epochs > 1 and not drops
