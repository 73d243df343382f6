"""Check by forward passes on short inputs what was concluded of a model, before anyone relies on it."""

import dataclasses
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from strop.anatomy.anatomy import Anatomy
from strop.anatomy.calling import evaluating
from strop.anatomy.prefix import hidden_states_entering, logits_at
from strop.anatomy.reading.check_rows import refuse_other_roles
from strop.anatomy.reading.check_weights import OutputCheck, readable, refuse_other_storage
from strop.anatomy.reading.inputs import Inputs, run, short_inputs
from strop.anatomy.reading.observe import Observed, observe
from strop.anatomy.reading.rounding import differ
from strop.anatomy.sites import MatrixType, Stack, WeightSite
from strop.errors import AnatomyError

PADDING = 2
"""How many tokens are put behind the short inputs."""


@dataclasses.dataclass(frozen=True)
class Findings:
    """What forward passes showed of a model whose anatomy holds."""

    seen: Observed
    """What the blocks of the main stack did; where they could not be run, why."""
    reuses_prefix: bool = False
    """Whether running the upper blocks alone, from a kept hidden state, gives what the whole pass gives."""
    told: frozenset[MatrixType] = frozenset()
    """The matrices whose rows were seen to serve as their names say."""


def verify(model: PreTrainedModel, anatomy: Anatomy, *, inputs: Inputs | None = None) -> Findings:
    """Return what a few forward passes on two short inputs show of a model, if they show no fault of its anatomy.

    Of every kind of block the first is looked at: what is read of its weights is stored there and belongs to one matrix;
    each module gives x Wᵀ + b; rows of query, key, value, gate and up serve as such. Of the whole model: what its blocks
    return, that causal tokens see no later ones, that padding on the right changes nothing, whether prefixes can be reused.

    Args:
        model: a model of transformers, with its head on or without; it stays as it is.
        anatomy: what was concluded of it.
        inputs: what to call its body with, by name, if not with token ids: a batch of two.

    Raises:
        AnatomyError: something does not hold; the message says what, and what to correct.
    """
    sites = [
        site
        for stack in anatomy.stacks
        for layer in _first_of_each_make(model, anatomy, stack)
        for site in readable(model, anatomy, anatomy.sites(layers=[layer], stack=stack))
    ]
    with torch.no_grad():
        refuse_other_storage(model, anatomy, sites)
        seen = observe(model, anatomy.family.blocks, inputs=inputs)
        if not seen.ran:
            return Findings(seen)
        _refuse_other_family(anatomy, seen)
        inputs = inputs or short_inputs(model)
        with evaluating(model):
            with OutputCheck(model, anatomy, [site for site in sites if anatomy.spelling(site).is_tappable]) as check:
                whole = _whole(model, anatomy, inputs)
            told = _told(model, anatomy, check.reached, inputs)
            _refuse_padding(model, anatomy, inputs, whole.states)
            return Findings(seen, seen.calls_per_block == 1 and _reuses_prefix(model, anatomy, inputs, whole), told)


def _first_of_each_make(model: PreTrainedModel, anatomy: Anatomy, stack: Stack | None) -> list[int]:
    """Return the first block of each make: of the same parameters, in the same shapes."""
    firsts: dict[object, int] = {}
    for layer, block in enumerate(anatomy.blocks(model, stack)):
        make = (type(block), *((name, weight.shape) for name, weight in block.named_parameters()))
        firsts.setdefault(make, layer)
    return list(firsts.values())


def _refuse_other_family(anatomy: Anatomy, seen: Observed) -> None:
    family = anatomy.family
    if seen.block_returns != family.block_returns:
        raise AnatomyError(
            f"A {family.name} block is said to return a {family.block_returns}, and this one returns a {seen.block_returns}: "
            f'describe the family with block_returns="{seen.block_returns}".'
        )
    if family.causal and seen.causal is False:
        raise AnatomyError(
            f"The tokens of a {family.name} model are said to see those before them alone, and these see later ones too: "
            "describe the family with causal=False."
        )


def _told(model: PreTrainedModel, anatomy: Anatomy, sites: list[WeightSite], inputs: Inputs) -> frozenset[MatrixType]:
    """Return the matrices that rows were seen to serve as, block by block of those a pass has reached."""
    told: set[MatrixType] = set()
    for stack, layer in dict.fromkeys((site.stack, site.layer) for site in sites):
        spelled = {
            site.matrix_type: anatomy.spelling(site) for site in sites if (site.stack, site.layer) == (stack, layer)
        }
        block, sizes = anatomy.blocks(model, stack)[layer], anatomy.stacks[stack]
        told |= refuse_other_roles(model, block, spelled, sizes, layer=layer, stack=stack, inputs=inputs)
    return frozenset(told)


@dataclasses.dataclass(frozen=True, eq=False)
class _Whole:
    """What a whole pass gives."""

    states: Tensor
    """(batch, tokens, hidden), what leaves the last block."""
    logits: Tensor | None
    """(batch, tokens, vocabulary), of a model that scores tokens."""


def _whole(model: PreTrainedModel, anatomy: Anatomy, inputs: Inputs, *, head: bool = True) -> _Whole:
    left: list[Tensor] = []
    logits: Tensor | None = None

    def keep(_block: nn.Module, _arguments: tuple[Any, ...], output: Any) -> None:
        left.append((output[0] if isinstance(output, tuple) else output).clone())

    handle = anatomy.blocks(model)[-1].register_forward_hook(keep)
    try:
        if head and model.get_output_embeddings() is not None and not model.config.is_encoder_decoder:
            logits = model(**inputs, use_cache=False).logits
        else:
            run(model, inputs)
    finally:
        handle.remove()
    return _Whole(left[-1], logits)


def _refuse_padding(model: PreTrainedModel, anatomy: Anatomy, inputs: Inputs, states: Tensor) -> None:
    if inputs.keys() != {"input_ids"}:
        return
    ids = inputs["input_ids"]
    token = model.config.get_text_config().pad_token_id
    padding = ids.new_full((len(ids), PADDING), int(ids[0, 0]) if token is None else token)
    masked = {} if anatomy.family.causal else {"attention_mask": torch.cat([ids * 0 + 1, padding * 0], 1)}
    padded = _whole(model, anatomy, {"input_ids": torch.cat([ids, padding], 1), **masked}, head=False)
    if differ(padded.states[:, : ids.shape[1]], states):
        raise AnatomyError(
            f"Padding on the right changes what {type(model).__name__} makes of the tokens before it, so that the score of a row "
            "would depend on its batch."
        )


def _reuses_prefix(model: PreTrainedModel, anatomy: Anatomy, inputs: Inputs, whole: _Whole) -> bool:
    if inputs.keys() != {"input_ids"}:
        return False
    ids, count = inputs["input_ids"], anatomy.layer_count
    start = (count + 1) // 2
    try:
        state = hidden_states_entering(model, anatomy, ids, layer=start)
        if whole.logits is None:
            above = hidden_states_entering(model, anatomy, ids, layer=count, start=start, state=state)
            return not differ(above, whole.states)
        rows, columns = (torch.tensor(places, device=ids.device) for places in ([0, 1], [0, ids.shape[1] - 1]))
        logits = logits_at(model, anatomy, ids, rows, columns, start=start, state=state)
        return not differ(logits, whole.logits[rows, columns])
    except Exception:  # whatever a model raises that cannot be run in part
        return False
