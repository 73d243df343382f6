"""What one short forward pass shows of a list of blocks, before anything is known of what they are made of."""

import dataclasses
import operator
from collections import Counter
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from strop.anatomy.calling import evaluating
from strop.anatomy.reading.inputs import Inputs, copies, refuse_no_weights, run, short_inputs
from strop.errors import AnatomyError, reason_in


@dataclasses.dataclass(frozen=True)
class Observed:
    """What a forward pass showed of a list of blocks; nothing where it could not be run."""

    block_returns: Literal["tensor", "tuple"] | None = None
    """What a block gives back: the hidden state, or a tuple that begins with it."""
    causal: bool | None = None
    """Whether what leaves the last block at a token depends on the tokens before it alone."""
    calls_per_block: int = 0
    """How often one block runs in a pass, at most: more than once where layers share it."""
    obstacle: str = ""
    """Why nothing was seen, as a part of a sentence."""

    @property
    def ran(self) -> bool:
        """Whether the blocks ran."""
        return self.calls_per_block > 0


def observe(model: PreTrainedModel, blocks_path: str, *, inputs: Inputs | None = None) -> Observed:
    """Return what one forward pass on a short input shows of a list of blocks.

    Three copies of the input run together. In the second the last token's hidden state is changed where it enters the first
    block: a causal model's other tokens stay as they are in the third, which nothing changed.

    Args:
        model: a model of transformers, with its head on or without.
        blocks_path: where its list of blocks is.
        inputs: what to call its body with, by name; the first of each batch is used. Short random token ids or an image by
            default.
    """
    blocks: nn.ModuleList = operator.attrgetter(blocks_path)(model)
    seen = _Seen(blocks)
    try:
        refuse_no_weights(model)
        with torch.no_grad(), evaluating(model), seen:
            run(model, copies(inputs or short_inputs(model), 3))
    except Exception as error:  # whatever a model raises that wants other inputs
        return Observed(obstacle=reason_in(error))
    if seen.output is None:
        return Observed(obstacle=f"a forward pass does not reach {blocks_path}")
    return Observed(
        block_returns="tuple" if isinstance(seen.output, (tuple, list)) else "tensor",
        causal=_sees_no_later(seen.output) if seen.changed else None,
        calls_per_block=max(seen.calls.values()),
    )


class _Seen:
    """Counts the calls of some blocks, changes what enters the first, and keeps what leaves the last."""

    def __init__(self, blocks: nn.ModuleList) -> None:
        self._blocks = blocks
        self.calls: Counter[nn.Module] = Counter()
        self.output: Any = None
        self.changed = False

    def __enter__(self) -> None:
        self._handles = [block.register_forward_hook(self._after) for block in self._blocks]
        self._handles += [block.register_forward_pre_hook(self._before, with_kwargs=True) for block in self._blocks]

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _before(self, block: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        first = not self.calls
        self.calls[block] += 1
        states = arguments[0] if arguments else named.get("hidden_states")
        if not first or not isinstance(states, Tensor) or states.ndim != 3 or states.shape[1] < 2:
            return None
        states, self.changed = states.clone(), True
        states[1, -1] += states[1, -1].roll(1) + states[1, -1].std()
        return ((states, *arguments[1:]), named) if arguments else ((), {**named, "hidden_states": states})

    def _after(self, _block: nn.Module, _arguments: tuple[Any, ...], output: Any) -> None:
        self.output = output


def _sees_no_later(output: Any) -> bool | None:
    """Return whether a change of the second copy's last token left the others as they were, but for rounding."""
    states = output[0] if isinstance(output, (tuple, list)) else output
    if not isinstance(states, Tensor) or states.ndim != 3 or len(states) != 3:
        return None
    first, changed, same = (copy[:-1].double() for copy in states)
    rounding = min(4 * torch.finfo(states.dtype).eps, 1e-3) * first.abs().mean()
    return bool((changed - first).abs().mean() <= 4 * (same - first).abs().mean() + rounding)


def refuse_not_run(observed: Observed, model: PreTrainedModel) -> None:
    """Raise AnatomyError if the blocks did not run."""
    if not observed.ran:
        raise AnatomyError(f"{type(model).__name__} could not be run to look at it: {observed.obstacle}.")
