"""Run part of a model: start at a block from a kept hidden state, stop at another, score only where asked.

An edit in layer ℓ leaves every activation below it as it was, so a sweep keeps the hidden state that enters block ℓ and
runs only what lies above. Nothing here knows an architecture: for one call the blocks that are not wanted pass their input
through, and the first wanted one is fed the kept state.
"""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

from strop.anatomy.anatomy import Anatomy
from strop.anatomy.part import Part, running
from strop.errors import AnatomyError


def hidden_states_entering(
    model: PreTrainedModel,
    anatomy: Anatomy,
    input_ids: Tensor,
    *,
    layer: int,
    start: int = 0,
    state: Tensor | None = None,
    beside: Mapping[str, Tensor] | None = None,
) -> Tensor:
    """Return the hidden states that enter block `layer`, running only blocks `start` to `layer` − 1.

    Args:
        model: a causal language model.
        anatomy: of that model.
        input_ids: (batch, tokens), padded on the right.
        layer: 0 to the number of layers; the latter gives what leaves the last block, before the final norm.
        start: the block `state` enters; 0 starts from the embeddings.
        state: (batch, tokens, hidden), what enters block `start`; needed where `start` is above 0, welcome at 0.
        beside: what the model is called with beside the ids: an attention mask where tokens see those behind them.

    Returns:
        (batch, tokens, hidden).

    Raises:
        AnatomyError: the model can only be run whole.
    """
    if layer == start and state is not None:
        return state
    _refuse_to_resume(anatomy, start)
    captured: list[Tensor] = []
    with running(anatomy.blocks(model), anatomy.family, Part(start, layer, state, captured=captured)):
        model.base_model(input_ids=input_ids, use_cache=False, **(beside or {}))
    return captured[0]


def hidden_states_made_by(
    model: PreTrainedModel,
    anatomy: Anatomy,
    input_ids: Tensor,
    *,
    layer: int,
    beside: Mapping[str, Tensor] | None = None,
) -> Tensor:
    """Return what block `layer` makes of its input, before any hook on it changes that.

    Args:
        model: a causal language model.
        anatomy: of that model.
        input_ids: (batch, tokens), padded on the right.
        layer: the block.
        beside: what the model is called with beside the ids: an attention mask where tokens see those behind them.

    Returns:
        (batch, tokens, hidden).
    """
    made: list[Tensor] = []
    with running(anatomy.blocks(model), anatomy.family, Part(0, layer + 1, made=made)):
        model.base_model(input_ids=input_ids, use_cache=False, **(beside or {}))
    return made[-1]  # of layers that share a block the last


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
    beside: Mapping[str, Tensor] | None = None,
) -> Tensor:
    """Return the logits at chosen positions, running only blocks `start` and above.

    A causal model needs no attention mask: its real tokens never see the padding on their right.

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
        beside: what the model is called with beside the ids: an attention mask where tokens see those behind them.

    Returns:
        (positions, vocabulary).

    Raises:
        AnatomyError: the model can only be run whole.
    """
    _refuse_to_resume(anatomy, start)
    part = Part(start, anatomy.layer_count, state, raw=raw, scored=(rows, columns))
    with running(anatomy.blocks(model), anatomy.family, part, head=model.get_output_embeddings()):
        logits: Tensor = (caller or model)(input_ids=input_ids, use_cache=False, **(beside or {})).logits
    return logits[0]


def _refuse_to_resume(anatomy: Anatomy, start: int) -> None:
    """Raise AnatomyError if blocks are to go on from hidden states that are not all they read; behind the last is only the head."""
    if 0 < start < anatomy.layer_count and not anatomy.family.resumes:
        raise AnatomyError(
            f"A {anatomy.family.name} model's blocks read more than what enters them, so none can be run from block {start} on; "
            "run the whole model."
        )
