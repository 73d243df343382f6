"""A model's spelling, read from its modules: which lists of blocks it has, and what the matrices of each block are."""

import dataclasses
import operator
from collections.abc import Iterable, Mapping

from torch import nn
from transformers import PreTrainedModel

from strop.anatomy.families import Family, Matrices, Spelling
from strop.anatomy.families.fused import interleaves_heads
from strop.anatomy.reading.blocks import block_lists
from strop.anatomy.reading.roles import Roles, roles_in
from strop.anatomy.sites import HEADED, MatrixType, Stack
from strop.anatomy.sizes import config_of


@dataclasses.dataclass(frozen=True)
class Structure:
    """What a model's modules say of it, before anything is run."""

    family: Family
    unnamed: tuple[str, ...]
    """The paths, from a block on, of matrices that were not told and are left alone."""


def read_structure(model: PreTrainedModel) -> Structure | None:
    """Return how a model spells its parts as far as module types, names and shapes tell, or None where they tell nothing.

    What a fused matrix holds is taken to be stacked, but where an architecture is known to interleave its heads; what blocks
    return, and what a token sees, is what most do. Running the model says whether that is so.
    """
    lists = block_lists(model)
    if lists is None:
        return None
    roles = {stack: _roles_of(model, path, stack) for stack, path in ({None: lists.main} | lists.stacks).items()}
    main = next((stack for stack, path in lists.stacks.items() if path == lists.main), None)
    spelled = {stack: _alternatives(own.own for own in each) for stack, each in roles.items()}
    if not spelled[main]:
        return None
    crosses = _alternatives(own.cross for own in roles.get(Stack.DECODER, ()))
    others: dict[Stack | None, Matrices] = {
        stack: matrices for stack, matrices in spelled.items() if stack not in (None, main) and stack in lists.stacks
    }
    stacks = dict(lists.stacks)
    if crosses:
        others[Stack.CROSS], stacks[Stack.CROSS] = crosses, lists.stacks[Stack.DECODER]
    family = Family(
        name=type(model.config.get_text_config()).__name__.removesuffix("TextConfig").removesuffix("Config"),
        model_types=(model.config.model_type,),
        blocks=lists.main,
        matrices=_packed_as_known(spelled[main], model),
        positions_after_padding=_counts_positions_after_padding(model),
        stacks=stacks,
        stack_matrices=others,
    )
    return Structure(family, tuple(dict.fromkeys(path for own in roles[main] for path in own.unnamed)))


def _roles_of(model: PreTrainedModel, path: str, stack: Stack | None) -> list[Roles]:
    """Return what the matrices of each block are; blocks alike are read once."""
    blocks: nn.ModuleList = operator.attrgetter(path)(model)
    hidden_size = getattr(config_of(model, stack), "hidden_size", 0)
    known: dict[tuple[object, ...], Roles] = {}
    found = []
    for block in blocks:
        looks = tuple(
            (name, type(part), *(tuple(p.shape) for p in part.parameters(recurse=False)))
            for name, part in block.named_modules()
        )
        if looks not in known:
            known[looks] = roles_in(block, hidden_size=hidden_size)
        found.append(known[looks])
    return found


def _alternatives(layers: Iterable[Mapping[MatrixType, Spelling]]) -> dict[MatrixType, Spelling | tuple[Spelling, ...]]:
    """Return every spelling of each matrix type, in the order of the layers that have them."""
    found: dict[MatrixType, dict[Spelling, None]] = {}
    for own in layers:
        for matrix_type, spelling in own.items():
            found.setdefault(matrix_type, {})[spelling] = None
    ordered = {matrix_type: tuple(found[matrix_type]) for matrix_type in MatrixType if matrix_type in found}
    return {matrix_type: each if len(each) > 1 else each[0] for matrix_type, each in ordered.items()}


def _packed_as_known(
    matrices: Mapping[MatrixType, Spelling | tuple[Spelling, ...]], model: PreTrainedModel
) -> Mapping[MatrixType, Spelling | tuple[Spelling, ...]]:
    """Return spellings with the heads of a fused matrix interleaved where the architecture is known for it."""
    if not interleaves_heads(model.config):
        return matrices
    return {
        matrix_type: dataclasses.replace(spelled, packing="interleaved")
        if isinstance(spelled, Spelling) and HEADED & {*spelled.packed}
        else spelled
        for matrix_type, spelled in matrices.items()
    }


def _counts_positions_after_padding(model: PreTrainedModel) -> bool:
    """Return whether a table of positions has a row for padding, as RoBERTa's: positions are counted from there."""
    tables = (part for name, part in model.named_modules() if name.endswith("position_embeddings"))
    return any(isinstance(table, nn.Embedding) and table.padding_idx is not None for table in tables)
