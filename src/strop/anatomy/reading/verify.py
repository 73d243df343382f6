"""Check by forward passes on short inputs what was concluded of a model, before anyone relies on it."""

import dataclasses
import operator
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from strop.anatomy.calling import evaluating
from strop.anatomy.families import Family
from strop.anatomy.part import Part, running
from strop.anatomy.place import Place
from strop.anatomy.reading.check_rows import refuse_other_roles
from strop.anatomy.reading.check_weights import OutputCheck, readable, refuse_other_storage
from strop.anatomy.reading.inputs import Inputs, run, short_inputs, uncached
from strop.anatomy.reading.observe import Observed, observe
from strop.anatomy.reading.rounding import differ
from strop.anatomy.sites import MatrixType, Stack, WeightSite
from strop.anatomy.sizes import StackSizes
from strop.errors import AnatomyError

AllSizes = Mapping[Stack | None, StackSizes]

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
    uncalled: frozenset[str] = frozenset()
    """The paths, from a block on, of modules that the block calls for more than its tokens, or not at all."""


def verify(model: PreTrainedModel, family: Family, sizes: AllSizes, *, inputs: Inputs | None = None) -> Findings:
    """Return what a few forward passes on two short inputs show of a model, if they show no fault of its spelling.

    Of every kind of block the first is looked at: what is read of its weights is stored there and belongs to one matrix;
    each module gives x Wᵀ + b; rows of query, key, value, gate and up serve as such. Of the whole model: what its blocks
    return, that causal tokens see no later ones, that padding on the right changes nothing, whether prefixes can be reused.

    Args:
        model: a model of transformers, with its head on or without; it stays as it is.
        family: what was concluded of it.
        sizes: of each of its stacks.
        inputs: what to call its body with, by name, if not with token ids: a batch of two.

    Raises:
        AnatomyError: something does not hold; the message says what, and what to correct.
    """
    all_places = [
        place
        for stack in sizes
        for layer in _first_of_each_make(model, family, stack)
        for place in _places(family, sizes, stack, layer)
    ]
    places = readable(model, all_places)
    with torch.no_grad():
        refuse_other_storage(model, places)
        seen = observe(model, family.blocks, inputs=inputs)
        if not seen.ran:
            return Findings(seen)
        _refuse_other_family(family, seen)
        inputs = inputs or short_inputs(model)
        with evaluating(model):
            seeable = [place for place in places if place.spelling.is_tappable]
            with OutputCheck(model, seeable) as check:
                whole = _whole(model, inputs)
            told = _told(model, family, sizes, check.reached, inputs)
            most = seen.calls_per_block * (
                1 if whole.logits is None else 2
            )  # a pass of the body, and one with its head
            exact = len(places) == len(all_places)  # what is quantised may round by all it is given at once
            if exact:
                _refuse_padding(model, family, inputs, whole.states)
            reuses = seen.calls_per_block == 1 and (not exact or _reuses_prefix(model, family, inputs, whole))
            return Findings(seen, reuses, told, _uncalled(model, seeable, check, most))


def _uncalled(model: PreTrainedModel, places: Sequence[Place], check: OutputCheck, most: int) -> frozenset[str]:
    """Return the paths of modules that were called too often, or not though others of their block were; experts may have none."""
    ran = {(place.site.stack, place.site.layer) for place in check.reached}
    return frozenset(
        place.spelling.path
        for place in places
        if (place.site.stack, place.site.layer) in ran
        and not place.spelling.has_experts
        and (place not in check.reached or check.calls[place.module(model)] > most)
    )


def _places(family: Family, sizes: AllSizes, stack: Stack | None, layer: int) -> list[Place]:
    """Return the places of a layer's matrices; of experts those of the first."""
    own = sizes[stack]
    return [
        Place(
            WeightSite(layer, matrix_type, expert=0 if spelling.has_experts else None, stack=stack),
            spelling,
            own,
            family,
        )
        for matrix_type, spelling in own.spellings[layer].items()
    ]


def _blocks(model: PreTrainedModel, family: Family, stack: Stack | None) -> nn.ModuleList:
    blocks: nn.ModuleList = operator.attrgetter(family.paths[stack])(model)
    return blocks


def _first_of_each_make(model: PreTrainedModel, family: Family, stack: Stack | None) -> list[int]:
    """Return the first block of each make: of the same parameters, in the same shapes."""
    firsts: dict[object, int] = {}
    for layer, block in enumerate(_blocks(model, family, stack)):
        make = (type(block), *((name, weight.shape) for name, weight in block.named_parameters()))
        firsts.setdefault(make, layer)
    return list(firsts.values())


def _refuse_other_family(family: Family, seen: Observed) -> None:
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
    if seen.calls_per_block != family.calls_per_block:
        raise AnatomyError(
            f"A {family.name} block is said to run {family.calls_per_block} times in a pass, and one runs {seen.calls_per_block} "
            f"times: describe the family with calls_per_block={seen.calls_per_block}."
        )


def _told(
    model: PreTrainedModel, family: Family, sizes: AllSizes, places: Sequence[Place], inputs: Inputs
) -> frozenset[MatrixType]:
    """Return the matrices that rows were seen to serve as, block by block of those a pass has reached."""
    told: set[MatrixType] = set()
    for stack, layer in dict.fromkeys((place.site.stack, place.site.layer) for place in places):
        spelled = {
            place.site.matrix_type: place.spelling
            for place in places
            if (place.site.stack, place.site.layer) == (stack, layer)
        }
        block = _blocks(model, family, stack)[layer]
        told |= refuse_other_roles(model, block, spelled, sizes[stack], layer=layer, stack=stack, inputs=inputs)
    return frozenset(told)


@dataclasses.dataclass(frozen=True, eq=False)
class _Whole:
    """What a whole pass gives."""

    states: Tensor
    """(batch, tokens, hidden), what the model's body ends with."""
    logits: Tensor | None
    """(batch, tokens, vocabulary), of a model that scores tokens."""


def _whole(model: PreTrainedModel, inputs: Inputs) -> _Whole:
    scores_tokens = model.get_output_embeddings() is not None and not model.config.is_encoder_decoder
    return _Whole(run(model, inputs)[0], _logits(model, inputs) if scores_tokens else None)


def _logits(model: PreTrainedModel, inputs: Inputs) -> Tensor:
    with torch.compiler.set_stance("force_eager"):
        logits: Tensor = model(**inputs, **uncached(model)).logits
    return logits


def _refuse_padding(model: PreTrainedModel, family: Family, inputs: Inputs, states: Tensor) -> None:
    if inputs.keys() != {"input_ids"}:
        return
    ids = inputs["input_ids"]
    token = getattr(model.config.get_text_config(), "pad_token_id", None)
    padding = ids.new_full((len(ids), PADDING), int(ids[0, 0]) if token is None else token)
    masked = {} if family.causal else {"attention_mask": torch.cat([ids * 0 + 1, padding * 0], 1)}
    padded = run(model, {"input_ids": torch.cat([ids, padding], 1), **masked})[0]
    if differ(padded[:, : ids.shape[1]], states):
        raise AnatomyError(
            f"Padding on the right changes what {type(model).__name__} makes of the tokens before it, so that the score of a row "
            "would depend on its batch."
        )


def _reuses_prefix(model: PreTrainedModel, family: Family, inputs: Inputs, whole: _Whole) -> bool:
    """Return whether the upper half of the blocks gives what all give, when it is fed what entered it."""
    if inputs.keys() != {"input_ids"}:
        return False
    blocks = _blocks(model, family, family.main_stack)
    start, count = (len(blocks) + 1) // 2, len(blocks)
    try:
        (state,) = _captured(model, family, Part(0, start, captured=[]), inputs)
        if whole.logits is None:
            (above,) = _captured(model, family, Part(start, count, state, captured=[]), inputs)
            return not differ(above, _captured(model, family, Part(0, count, captured=[]), inputs)[0])
        last = inputs["input_ids"].shape[1] - 1
        rows, columns = (torch.tensor(places, device=state.device) for places in ([0, 1], [0, last]))
        upper = Part(start, count, state, scored=(rows, columns))
        with running(blocks, family, upper, head=model.get_output_embeddings()):
            return not differ(_logits(model, inputs)[0], whole.logits[rows, columns])
    except Exception:  # whatever a model raises that cannot be run in part
        return False


def _captured(model: PreTrainedModel, family: Family, part: Part, inputs: Inputs) -> list[Tensor]:
    with running(_blocks(model, family, family.main_stack), family, part):
        run(model, inputs)
    return part.captured or []
