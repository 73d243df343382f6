"""What enters a model's first blocks: how many tokens it is, and whether gradients reach it."""

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from strop.anatomy.anatomy import Anatomy


@dataclasses.dataclass
class Entering:
    """What a call of a model was seen to begin with."""

    shape: tuple[int, int] = (0, 0)
    """Sequences, or images, and the tokens of each."""


@contextlib.contextmanager
def tokens_entering(model: PreTrainedModel, anatomy: Anatomy) -> Iterator[Entering]:
    """Look, for the length of a `with` block, at what enters the first block of each of a model's stacks.

    Where gradients are computed, these hidden states ask for some, so that a frozen model lets them reach all its blocks.

    Args:
        model: of texts or images.
        anatomy: of that model.

    Yields:
        What is seen of the main stack, filled by the first call within the block.
    """
    seen, main = Entering(), anatomy.blocks(model)[0]
    met: set[nn.Module] = set()

    def look(block: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        states: Tensor = arguments[0] if arguments else named["hidden_states"]
        if block is main and seen.shape == (0, 0):
            seen.shape = (states.shape[0], states[0].numel() // states.shape[-1])
        if block in met or states.requires_grad or not torch.is_grad_enabled():
            return None
        met.add(block)
        asking = states.detach().requires_grad_()
        return ((asking, *arguments[1:]), named) if arguments else (arguments, {**named, "hidden_states": asking})

    firsts = dict.fromkeys(anatomy.blocks(model, stack)[0] for stack in anatomy.stacks)
    handles = [first.register_forward_pre_hook(look, with_kwargs=True) for first in firsts]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
