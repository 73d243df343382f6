"""What all sequences begin with is read once: its keys and values are kept, and only the rest of each sequence is run."""

import copy
import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from strop.anatomy import evaluating, input_device
from strop.scoring.encoding import right_padded
from strop.scoring.forms import TokenSequence
from strop.scoring.resources import Resources

FEWEST_TOKENS = 16
"""A shorter prefix is not worth it."""


@dataclasses.dataclass(frozen=True, eq=False)
class SharedPrefix:
    """Tokens that all sequences begin with, as a model without edits has read them."""

    length: int
    cache: DynamicCache
    """Keys and values of every layer, of one row."""

    @classmethod
    def of(cls, model: PreTrainedModel, sequences: Sequence[TokenSequence]) -> "SharedPrefix | None":
        """Return what the sequences share; None where it is short, or the model does not go on from it as from the whole.

        Layers whose caches do not grow token by token, such as sliding windows or recurrent states, are left out; and two
        sequences are run both ways before it is trusted.

        Args:
            model: a causal language model with nothing attached.
            sequences: at least one.
        """
        first_scored = min(sequence.first_scored for sequence in sequences)
        low, high = (order(sequence.ids for sequence in sequences) for order in (min, max))  # all others lie between
        pairs = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(low, high, strict=False))
        same = sum(1 for _ in pairs)
        length = min(same, first_scored - 1)  # the token before the first scored one is run
        if length < FEWEST_TOKENS:
            return None
        try:
            with evaluating(model), torch.inference_mode():
                ids = torch.tensor([sequences[0].ids[:length]], device=input_device(model))
                cache = model(input_ids=ids, use_cache=True, logits_to_keep=1).past_key_values
                if type(cache) is not DynamicCache or any(type(layer) is not DynamicLayer for layer in cache.layers):
                    return None
                found = cls(length, cache)
                return found if found._is_true_of(model, [sequences[0], sequences[-1]]) else None
        except Exception:  # whatever a model does that takes no cache, or another kind: the whole is run then
            return None

    def rest_of(self, sequences: Sequence[TokenSequence]) -> list[TokenSequence]:
        """Return the sequences without what they share."""
        return [
            dataclasses.replace(
                sequence, ids=sequence.ids[self.length :], first_scored=sequence.first_scored - self.length
            )
            for sequence in sequences
        ]

    def within(self, resources: Resources, *, longest: int) -> Resources:
        """Return resources whose batches have so few rows that a copy of the keys and values for each fits in memory.

        Args:
            resources: what a batch may take.
            longest: tokens of the longest rest.
        """
        row_bytes = sum(layer.keys.nbytes + layer.values.nbytes for layer in self.cache.layers)
        rows = max(1, resources.state_bytes // 2 // row_bytes)
        return dataclasses.replace(resources, batch_tokens=min(resources.batch_tokens, rows * longest))

    def caller(self, model: PreTrainedModel) -> Callable[..., Any]:
        """Return what to call in the place of a model on the rests of some sequences."""

        def call(*, input_ids: Tensor, **_: Any) -> Any:
            cache = copy.deepcopy(self.cache)  # it grows with the call
            cache.batch_repeat_interleave(input_ids.shape[0])
            return model(input_ids=input_ids, past_key_values=cache, use_cache=True)

        return call

    def _is_true_of(self, model: PreTrainedModel, sequences: Sequence[TokenSequence]) -> bool:
        device = input_device(model)
        whole, rest = (
            right_padded([sequence.ids for sequence in some]).to(device)
            for some in (sequences, self.rest_of(sequences))
        )
        places = torch.tensor([len(sequence.ids) - 1 for sequence in sequences], device=device)
        rows = torch.arange(len(sequences), device=device)
        expected = model(input_ids=whole, use_cache=False).logits[rows, places].float()
        found = self.caller(model)(input_ids=rest).logits[rows, places - self.length].float()
        tolerance = max(1e-3, 4 * torch.finfo(model.dtype).eps) * float(expected.abs().max())
        return bool(((expected - found).abs() <= tolerance).all())
