"""Run part of a model: start at a block from a kept hidden state, stop at another, score only where asked.

An edit in layer ℓ leaves every activation below it as it was, so a sweep keeps the hidden state that enters block ℓ and
runs only what lies above. Nothing here knows an architecture: for the length of one call the blocks that are not wanted
pass their input through, and the first wanted one is fed the kept state.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from strop.anatomy.anatomy import Anatomy
from strop.errors import AnatomyError


def hidden_states_entering(
    model: PreTrainedModel,
    anatomy: Anatomy,
    input_ids: Tensor,
    *,
    layer: int,
    start: int = 0,
    state: Tensor | None = None,
) -> Tensor:
    """Return the hidden states that enter block `layer`, running only blocks `start` to `layer` − 1.

    Args:
        model: a causal language model.
        anatomy: of that model.
        input_ids: (batch, tokens), padded on the right.
        layer: 0 to the number of layers; the latter gives what leaves the last block, before the final norm.
        start: the block `state` enters; 0 starts from the embeddings.
        state: (batch, tokens, hidden), what enters block `start`; needed where `start` is above 0, welcome at 0.

    Returns:
        (batch, tokens, hidden).
    """
    if layer == start and state is not None:
        return state
    captured: list[Tensor] = []
    with _running(anatomy.blocks(model), anatomy, start, layer, state, captured):
        model.base_model(input_ids=input_ids, use_cache=False)
    return captured[0]


def hidden_states_made_by(model: PreTrainedModel, anatomy: Anatomy, input_ids: Tensor, *, layer: int) -> Tensor:
    """Return what block `layer` makes of its input, before any hook on it changes that.

    Args:
        model: a causal language model.
        anatomy: of that model.
        input_ids: (batch, tokens), padded on the right.
        layer: the block.

    Returns:
        (batch, tokens, hidden).
    """
    blocks = anatomy.blocks(model)
    made: list[Tensor] = []

    def capture(module: nn.Module, arguments: tuple[Any, ...], output: Any) -> None:
        made.append(output[0] if isinstance(output, tuple) else output)

    with _running(blocks, anatomy, 0, layer + 1, None, None):
        handle = blocks[layer].register_forward_hook(capture, prepend=True)
        try:
            model.base_model(input_ids=input_ids, use_cache=False)
        finally:
            handle.remove()
    return made[0]


def logits_at(
    model: PreTrainedModel,
    anatomy: Anatomy,
    input_ids: Tensor,
    rows: Tensor,
    columns: Tensor,
    *,
    start: int = 0,
    state: Tensor | None = None,
    raw: bool = False,
    caller: Callable[..., Any] | None = None,
) -> Tensor:
    """Return the logits at chosen positions, running only blocks `start` and above.

    No attention mask is passed: a causal model's real tokens never see the padding on their right.

    Args:
        model: a causal language model.
        anatomy: of that model.
        input_ids: (batch, tokens), padded on the right.
        rows: (positions,) which sequence of the batch.
        columns: (positions,) which token of it; its logits predict the next one.
        start: the block `state` enters; 0 starts from the embeddings.
        state: (batch, tokens, hidden), what enters block `start`; needed where `start` is above 0, welcome at 0.
        raw: the state is what block `start` − 1 made, and the hooks on that block have yet to change it.
        caller: what to call instead of the model: a wrapper around it that adds up gradients of several processes.

    Returns:
        (positions, vocabulary).
    """

    def keep_scored(module: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        hidden = arguments[0]
        return (hidden[rows.to(hidden.device), columns.to(hidden.device)].unsqueeze(0), *arguments[1:])

    handle = model.get_output_embeddings().register_forward_pre_hook(keep_scored)
    try:
        with _running(anatomy.blocks(model), anatomy, start, anatomy.layer_count, state, None, raw=raw):
            logits: Tensor = (caller or model)(input_ids=input_ids, use_cache=False).logits
    finally:
        handle.remove()
    return logits[0]


@contextlib.contextmanager
def _running(
    blocks: nn.ModuleList,
    anatomy: Anatomy,
    start: int,
    stop: int,
    state: Tensor | None,
    captured: list[Tensor] | None,
    *,
    raw: bool = False,
) -> Iterator[None]:
    """Let blocks below `start` and from `stop` on pass their input through; put what enters `stop` in `captured`.

    A raw state goes where block `start` − 1 would make it, so that the hooks on that block still see it.
    """
    if start > 0 and state is None:
        raise ValueError(f"Starting at block {start} needs the hidden state that enters it.")
    collected = [] if captured is None else captured
    as_block = (lambda hidden: (hidden, None)) if anatomy.family.block_returns == "tuple" else (lambda hidden: hidden)

    def skip(hidden_states: Tensor, *_: Any, **__: Any) -> Any:
        return as_block(hidden_states)

    def make(hidden_states: Tensor, *_: Any, **__: Any) -> Any:
        return as_block(state)

    def feed_after_blocks(module: nn.Module, arguments: tuple[Any, ...], output: Any) -> Any:
        return as_block(state)

    def refuse_keywords(arguments: tuple[Any, ...]) -> None:
        if not arguments:
            raise AnatomyError(
                f"A {anatomy.family.name} block is not called with its hidden state as the first positional argument, "
                "so no part of the model can be run alone."
            )

    def feed(module: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        refuse_keywords(arguments)
        return (state, *arguments[1:])

    def capture_input(module: nn.Module, arguments: tuple[Any, ...]) -> None:
        refuse_keywords(arguments)
        collected.append(arguments[0])

    def capture_output(module: nn.Module, arguments: tuple[Any, ...], output: Any) -> None:
        collected.append(output[0] if isinstance(output, tuple) else output)

    def check_kind(module: nn.Module, arguments: tuple[Any, ...], output: Any) -> None:
        if isinstance(output, tuple) != (anatomy.family.block_returns == "tuple"):
            kind = "tuple" if isinstance(output, tuple) else "tensor"
            raise AnatomyError(
                f"A {anatomy.family.name} block is said to return a {anatomy.family.block_returns}, and this one returns "
                f'a {kind}: describe the family with block_returns="{kind}".'
            )

    replaced: dict[int, Callable[..., Any]] = dict.fromkeys([*range(start), *range(stop, len(blocks))], skip)
    with contextlib.ExitStack() as undo:
        if raw:
            replaced[start - 1] = make
        elif state is not None and start < len(blocks):
            undo.callback(blocks[start].register_forward_pre_hook(feed).remove)
        elif state is not None:
            undo.callback(blocks[-1].register_forward_hook(feed_after_blocks).remove)  # after any edit of its output
        if captured is not None and stop < len(blocks):
            undo.callback(blocks[stop].register_forward_pre_hook(capture_input).remove)
        elif captured is not None:
            undo.callback(blocks[-1].register_forward_hook(capture_output).remove)
        if start < stop:
            undo.callback(blocks[start].register_forward_hook(check_kind).remove)
        for index, forward in replaced.items():
            undo.callback(_restore_forward, blocks[index], blocks[index].__dict__.get("forward"))
            blocks[index].forward = forward
        yield


def _restore_forward(block: nn.Module, own: Callable[..., Any] | None) -> None:
    del block.forward
    if own is not None:
        block.forward = own


@contextlib.contextmanager
def evaluating(model: PreTrainedModel) -> Iterator[None]:
    """Put a model into evaluation mode (no dropout) and back into the mode it was in, module by module."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


@contextlib.contextmanager
def frozen(model: PreTrainedModel) -> Iterator[None]:
    """Let no parameter of a model ask for a gradient, and restore what each asked for before."""
    asking = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in asking:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in asking:
            parameter.requires_grad_(True)


def input_device(model: PreTrainedModel) -> torch.device:
    """Return the device a model's token ids must be on."""
    device: torch.device = model.get_input_embeddings().weight.device
    return device
