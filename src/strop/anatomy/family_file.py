"""A family described in a YAML file, for architectures Strop does not know."""

from pathlib import Path
from typing import Literal

import pydantic
import yaml

from strop.anatomy.families import BiasFlag, Family, Spelling
from strop.anatomy.sites import MatrixType, Stack
from strop.errors import AnatomyError, UsageError


class _SpellingEntry(pydantic.BaseModel, extra="forbid"):
    path: str
    packing: Literal["whole", "stacked", "interleaved"] = "whole"
    packed: tuple[MatrixType, ...] = ()
    transposed: bool = False
    parameter: str = "weight"
    experts: Literal["stacked"] | None = None


class _BiasFlagEntry(pydantic.BaseModel, extra="forbid"):
    name: str
    matrix_types: tuple[MatrixType, ...]
    model_types: tuple[str, ...]


_Matrices = dict[MatrixType, str | _SpellingEntry]


class _FamilyEntry(pydantic.BaseModel, extra="forbid"):
    name: str
    model_types: tuple[str, ...] = ()
    blocks: str
    matrices: _Matrices
    block_returns: Literal["tensor", "tuple"] = "tensor"
    bias_flags: tuple[_BiasFlagEntry, ...] = ()
    causal: bool = True
    positions_after_padding: bool = False
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


def _family(entry: _FamilyEntry) -> Family:
    return Family(
        entry.name,
        entry.model_types,
        entry.blocks,
        _spelled(entry.matrices),
        entry.block_returns,
        tuple(BiasFlag(**flag.model_dump()) for flag in entry.bias_flags),
        entry.causal,
        entry.positions_after_padding,
        entry.stacks,
        {stack: _spelled(matrices) for stack, matrices in entry.stack_matrices.items()},
        entry.resumes,
    )


def _spelled(matrices: _Matrices) -> dict[MatrixType, Spelling]:
    return {
        matrix_type: Spelling(spelling) if isinstance(spelling, str) else Spelling(**spelling.model_dump())
        for matrix_type, spelling in matrices.items()
    }
