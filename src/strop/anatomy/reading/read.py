"""How a model nobody has listed is spelled: its modules say it, and a few forward passes decide what they leave open."""

import dataclasses
import operator
import threading
import weakref
from collections.abc import Iterable, Mapping

from torch import nn
from transformers import PreTrainedModel

from strop.anatomy.families import Family, Matrices, Spelling
from strop.anatomy.reading.observe import observe
from strop.anatomy.reading.packing import FoundPacking, UntoldPackingError, attention_packing, gated_packing
from strop.anatomy.reading.refusal import describe_unknown, refuse_reading
from strop.anatomy.reading.structure import read_structure
from strop.anatomy.reading.verify import Findings, verify
from strop.anatomy.sites import MatrixType, Stack
from strop.anatomy.sizes import StackSizes, sizes_of
from strop.errors import AnatomyError, UneditableWeightError, UnknownArchitectureError

_QKV, _GATE_UP = (
    frozenset({MatrixType.QUERY, MatrixType.KEY, MatrixType.VALUE}),
    frozenset({MatrixType.GATE, MatrixType.UP}),
)


@dataclasses.dataclass(frozen=True)
class Reading:
    """What was read of a model, or given and held to it."""

    family: Family
    obstacle: str = ""
    """Why no forward pass could check it, as a part of a sentence; empty where it was checked."""
    unnamed: tuple[str, ...] = ()
    """The paths, from a block on, of matrices that could not be told: they are left alone."""
    found: Findings | None = None
    """What forward passes showed."""
    given: bool = False
    """Whether the family was described by a person, and not read."""


_READ: "weakref.WeakKeyDictionary[PreTrainedModel, Reading]" = weakref.WeakKeyDictionary()
_ALIKE: dict[tuple[object, ...], Reading] = {}
_LOCK = threading.Lock()


def read_model(model: PreTrainedModel) -> Reading:
    """Return how a model is spelled; a model of the same class, config and modules is read once in a process.

    Raises:
        UnknownArchitectureError: its modules do not say, or what they say is not what running the model shows.
    """
    with _LOCK:
        found = _READ.get(model)
        if found is None:
            looks = _looks(model)
            found = _ALIKE.get(looks) or _read(model)
            _READ[model] = _ALIKE[looks] = found
        return found


def read_already(model: PreTrainedModel) -> Reading | None:
    """Return how a model was read earlier in this process; None where it was not."""
    with _LOCK:
        return _READ.get(model)


def _looks(model: PreTrainedModel) -> tuple[object, ...]:
    modules = tuple((name, type(part)) for name, part in model.named_modules())
    here = all(weight.device.type != "meta" for weight in model.parameters())
    return type(model), model.config.to_json_string(use_diff=False), modules, here


def _read(model: PreTrainedModel) -> Reading:
    structure = read_structure(model)
    if structure is None:
        raise UnknownArchitectureError(describe_unknown(model))
    family = structure.family
    seen = observe(model, family.blocks)
    if not seen.ran:
        whole = dataclasses.replace(family, resumes=not model.config.is_encoder_decoder)
        return Reading(whole, seen.obstacle, structure.unnamed)
    family = dataclasses.replace(
        family,
        block_returns=seen.block_returns or "tensor",
        causal=seen.causal is not False,
        calls_per_block=seen.calls_per_block,
    )
    try:
        family, untold = _packed_as_seen(model, family)
        found = verify(model, family, {stack: sizes_of(model, family, stack) for stack in family.paths})
    except (AnatomyError, UneditableWeightError) as error:
        raise refuse_reading(model, family, error) from None
    family = dataclasses.replace(_with_uncalled(family, found.uncalled), resumes=found.reuses_prefix)
    return Reading(family, "", (*structure.unnamed, *untold), found)


def _with_uncalled(family: Family, paths: frozenset[str]) -> Family:
    """Return a family that says of which modules the block reads the weight alone."""

    def said(matrices: Matrices) -> Matrices:
        return {
            matrix_type: _one_or_all(
                dataclasses.replace(each, called=each.path not in paths)
                for each in ((spelled,) if isinstance(spelled, Spelling) else spelled)
            )
            for matrix_type, spelled in matrices.items()
        }

    others = {stack: said(matrices) for stack, matrices in family.stack_matrices.items()}
    return dataclasses.replace(family, matrices=said(family.matrices), stack_matrices=others) if paths else family


def _packed_as_seen(model: PreTrainedModel, family: Family) -> tuple[Family, tuple[str, ...]]:
    """Return a family whose fused matrices hold their parts as the rows of the first block that has them behave.

    A fused matrix whose rows behave as those of no packing Strop knows is left out of it, and its path returned beside it.

    Raises:
        AnatomyError: nothing would be left of a list of blocks.
    """
    untold: list[str] = []
    stacks = {stack: _stack_as_seen(model, family, stack, untold) for stack in family.paths}
    main = stacks[family.main_stack]
    packed = dataclasses.replace(
        family, matrices=main, stack_matrices={stack: stacks[stack] for stack in family.stack_matrices}
    )
    return packed, tuple(dict.fromkeys(untold))


def _stack_as_seen(model: PreTrainedModel, family: Family, stack: Stack | None, untold: list[str]) -> Matrices:
    sizes, blocks = sizes_of(model, family, stack), operator.attrgetter(family.paths[stack])(model)
    spelled = family.matrices_of(stack)
    found: dict[Spelling, FoundPacking] = {}
    left: dict[Spelling, AnatomyError] = {}
    for fused in {each: None for spellings in spelled.values() for each in spellings if each.packed}:
        layer = next(index for index, own in enumerate(sizes.spellings) if fused in own.values())
        try:
            packing = _packing_of(model, blocks[layer], sizes.spellings[layer], fused, sizes)
        except UntoldPackingError as error:
            left[fused] = error
            continue
        if packing is not None:
            found[fused] = packing
    told = {matrix_type: [each for each in own if each not in left] for matrix_type, own in spelled.items()}
    if left and not any(told.values()):
        raise next(iter(left.values()))
    untold += [each.path for each in left]
    return {
        matrix_type: _one_or_all(
            dataclasses.replace(each, packing=found[each].packing, packed=found[each].packed) if each in found else each
            for each in spellings
        )
        for matrix_type, spellings in told.items()
        if spellings
    }


def _one_or_all(spellings: Iterable[Spelling]) -> Spelling | tuple[Spelling, ...]:
    every = tuple(spellings)
    return every[0] if len(every) == 1 else every


def _packing_of(
    model: PreTrainedModel,
    block: nn.Module,
    own: Mapping[MatrixType, Spelling],
    fused: Spelling,
    sizes: StackSizes,
) -> FoundPacking | None:
    """Return how a fused matrix holds its parts; None where it is not one that can be looked into."""
    parts = frozenset(fused.packed)
    if not fused.is_tappable:
        return None
    projection = block.get_submodule(fused.path)
    if parts == _QKV and MatrixType.OUTPUT in own and sizes.head_count:
        return attention_packing(
            model,
            projection,
            block.get_submodule(own[MatrixType.OUTPUT].path),
            head_count=sizes.head_count,
            key_value_head_count=sizes.key_value_head_count,
            head_size=sizes.head_size,
        )
    if parts == _GATE_UP and MatrixType.DOWN in own:
        rows = projection.get_parameter("weight").shape[1 if fused.transposed else 0]
        return gated_packing(model, projection, block.get_submodule(own[MatrixType.DOWN].path), row_count=rows)
    return None
