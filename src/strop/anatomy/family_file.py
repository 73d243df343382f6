"""A family described in a YAML file, for architectures Strop does not know."""

import dataclasses
import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
import yaml

from strop.anatomy.families import Family, Matrices, Spelling
from strop.anatomy.sites import MatrixType, Stack
from strop.errors import AnatomyError, UsageError
from strop.yaml_document import Fault, Form, read_mapping

FORM = Form("family file", "name, blocks and matrices", UsageError)


def _choose(name: str, known: Iterable[str]) -> str:
    """Return what to write in the place of a name that is not known, as a part of a sentence."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.75)
    return f"write {near[0]}" if near else f"choose among {', '.join(known)}"


def _matrix_type(name: Any) -> Any:
    if name not in list(MatrixType):
        raise ValueError(f"there is no such matrix type; {_choose(str(name), MatrixType)}")
    return name


_MatrixType = Annotated[MatrixType, pydantic.BeforeValidator(_matrix_type)]


class _SpellingEntry(pydantic.BaseModel, extra="forbid"):
    path: str
    packing: Literal["whole", "stacked", "interleaved"] = "whole"
    packed: tuple[_MatrixType, ...] = ()
    transposed: bool = False
    parameter: str = "weight"
    experts: Literal["stacked"] | None = None
    called: bool = True


def _listed(spelled: Any) -> Any:
    """Return a list of mappings, whether one matrix was spelled or several, by a path or by a mapping."""
    every = spelled if isinstance(spelled, list) else [spelled]
    if not every or not all(isinstance(each, (str, dict)) for each in every):
        raise ValueError(
            "a matrix is spelled by a path from a block on, by a mapping with a path, or by a list of these"
        )
    return [{"path": each} if isinstance(each, str) else each for each in every]


_Matrices = dict[_MatrixType, Annotated[tuple[_SpellingEntry, ...], pydantic.BeforeValidator(_listed)]]


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
    content = read_mapping(path, FORM)
    try:
        return _family(_FamilyEntry.model_validate(content))
    except pydantic.ValidationError as error:
        raise FORM.refuse(path, _said(Fault.first_of(error), content)) from None
    except AnatomyError as error:
        raise FORM.refuse(path, f" does not describe a family: {str(error).rstrip('.')}") from None


def _said(fault: Fault, content: Any) -> str:
    """Return what is wrong with a key, as the rest of a sentence that began with the file."""
    keys: list[str] = []
    for key in fault.keys:  # without the place in a list that is only one here
        if not isinstance(content, list) and key == "0":
            continue
        keys.append(key)
        content = (
            content[int(key)] if isinstance(content, list) else content.get(key) if isinstance(content, dict) else None
        )
    fault = dataclasses.replace(fault, keys=tuple(keys))
    if not fault.unknown:
        return f"{fault.where}: {fault.said}"
    entry = _FamilyEntry if len(keys) == 1 else _SpellingEntry
    return f"{fault.where}: there is no such key; {_choose(keys[-1], entry.model_fields)}"


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
    spelled = {
        matrix_type: tuple(Spelling(**entry.model_dump()) for entry in entries)
        for matrix_type, entries in matrices.items()
    }
    return {matrix_type: every[0] if len(every) == 1 else every for matrix_type, every in spelled.items()}
