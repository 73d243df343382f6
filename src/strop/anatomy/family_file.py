"""A family described in a YAML file, for architectures Strop does not know."""

import dataclasses
from pathlib import Path
from typing import Any, Literal

import pydantic
import yaml

from strop.anatomy.families import Family, Matrices, Spelling
from strop.anatomy.sites import MatrixType, Stack
from strop.errors import AnatomyError, UsageError


class _SpellingEntry(pydantic.BaseModel, extra="forbid"):
    path: str
    packing: Literal["whole", "stacked", "interleaved"] = "whole"
    packed: tuple[MatrixType, ...] = ()
    transposed: bool = False
    parameter: str = "weight"
    experts: Literal["stacked"] | None = None
    called: bool = True


_Spelled = str | _SpellingEntry
_Matrices = dict[MatrixType, _Spelled | tuple[_Spelled, ...]]


class _FamilyEntry(pydantic.BaseModel, extra="forbid"):
    name: str
    model_types: tuple[str, ...] = ()
    blocks: str
    matrices: _Matrices
    block_returns: Literal["tensor", "tuple"] = "tensor"
    causal: bool = True
    positions_after_padding: bool = False
    calls_per_block: int = 1
    stacks: dict[Stack | None, str] = {}
    stack_matrices: dict[Stack | None, _Matrices] = {}
    resumes: bool = True


def read_family(path: Path) -> Family:
    """Read a family from a YAML file.

    ```yaml
    name: mine
    blocks: transformer.h
    matrices:
      query: attn.q_proj
      up: {path: mlp.c_fc, transposed: true}
    ```

    Raises:
        UsageError: there is no such file, or its content is not of that form.
    """
    try:
        entry = _FamilyEntry.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise UsageError(f"The family file {path} cannot be read: {error.strerror}.") from None
    except (yaml.YAMLError, pydantic.ValidationError) as error:
        raise UsageError(f"The family file {path} does not describe a family: {error}") from None
    try:
        return _family(entry)
    except AnatomyError as error:
        raise UsageError(f"The family file {path} does not describe a family: {error}") from None


def family_as_yaml(family: Family) -> str:
    """Return a family as the content of a file that `read_family` reads.

    >>> from strop.anatomy import Family, MatrixType, Spelling
    >>> print(family_as_yaml(Family("mine", ("mine",), "model.layers", {MatrixType.UP: Spelling("mlp.fc1")})))
    name: mine
    model_types: [mine]
    blocks: model.layers
    matrices: {up: mlp.fc1}
    """
    entry: dict[str, Any] = {
        "name": family.name,
        "model_types": list(family.model_types),
        "blocks": family.blocks,
        "matrices": _matrices_entry(family.matrices),
    }
    if family.block_returns != "tensor":
        entry["block_returns"] = family.block_returns
    if not family.causal:
        entry["causal"] = False
    if family.positions_after_padding:
        entry["positions_after_padding"] = True
    if family.calls_per_block != 1:
        entry["calls_per_block"] = family.calls_per_block
    if not family.resumes:
        entry["resumes"] = False
    if family.stacks:
        entry["stacks"] = {stack and str(stack): path for stack, path in family.stacks.items()}
    if family.stack_matrices:
        entry["stack_matrices"] = {
            stack and str(stack): _matrices_entry(matrices) for stack, matrices in family.stack_matrices.items()
        }
    return yaml.safe_dump(entry, sort_keys=False, default_flow_style=None, width=200).rstrip()


def _matrices_entry(matrices: Matrices) -> dict[str, Any]:
    return {
        str(matrix_type): _spelling_entry(spelled)
        if isinstance(spelled, Spelling)
        else [_spelling_entry(each) for each in spelled]
        for matrix_type, spelled in matrices.items()
    }


def _spelling_entry(spelling: Spelling) -> str | dict[str, Any]:
    """Return a spelling's fields that are not as they are by default; its path alone where all are."""
    entry: dict[str, Any] = {
        field.name: getattr(spelling, field.name)
        for field in dataclasses.fields(spelling)
        if getattr(spelling, field.name) != field.default
    }
    if "packed" in entry:
        entry["packed"] = [str(part) for part in spelling.packed]
    return spelling.path if entry.keys() == {"path"} else entry


def _family(entry: _FamilyEntry) -> Family:
    return Family(
        entry.name,
        entry.model_types,
        entry.blocks,
        _spelled(entry.matrices),
        entry.block_returns,
        entry.causal,
        entry.positions_after_padding,
        entry.calls_per_block,
        entry.stacks,
        {stack: _spelled(matrices) for stack, matrices in entry.stack_matrices.items()},
        entry.resumes,
    )


def _spelled(matrices: _Matrices) -> dict[MatrixType, Spelling | tuple[Spelling, ...]]:
    return {
        matrix_type: tuple(_spelling(each) for each in entry) if isinstance(entry, tuple) else _spelling(entry)
        for matrix_type, entry in matrices.items()
    }


def _spelling(entry: _Spelled) -> Spelling:
    return Spelling(entry) if isinstance(entry, str) else Spelling(**entry.model_dump())
