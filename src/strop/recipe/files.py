"""A recipe on disk: recipe.json, tensors.safetensors where there are tensors, README.md. Nothing in it is executed."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pydantic
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from strop.errors import RecipeError
from strop.files import write_json, write_text

FORMAT = 1

HEAD = "head."
"""What the names of a head's tensors begin with."""


class BaseEntry(pydantic.BaseModel):
    """What recipe.json says of the base model."""

    id: str
    revision: str | None = None
    architecture: str
    fingerprint: str


class MatrixEntry(pydantic.BaseModel):
    """What recipe.json says of a matrix."""

    shape: tuple[int, int]
    dtype: str
    fingerprint: str


class HeadEntry(pydantic.BaseModel):
    """What recipe.json says of a classification head."""

    labels: tuple[str, ...]
    tensors: tuple[str, ...]


class Document(pydantic.BaseModel):
    """The content of recipe.json, checked."""

    format: int
    base: BaseEntry
    interventions: list[dict[str, Any]]
    matrices: list[MatrixEntry]
    provenance: dict[str, Any] = {}
    head: HeadEntry | None = None


def write_files(folder: Path, *, content: Mapping[str, Any], tensors: Mapping[str, Tensor], card: str) -> None:
    """Write a recipe's files into a folder that is there; others may lie beside them.

    Args:
        folder: of the recipe.
        content: of recipe.json.
        tensors: by their names in tensors.safetensors; no such file where there are none.
        card: of README.md.
    """
    write_json(folder / "recipe.json", dict(content))
    if tensors:
        own = {name: _on_its_own(tensor) for name, tensor in tensors.items()}
        save_file(own, folder / "tensors.safetensors", metadata={"format": "pt"})
    write_text(folder / "README.md", card)


def _on_its_own(tensor: Tensor) -> Tensor:
    """Return a copy that shares no memory with another tensor, for safetensors writes none that does."""
    return tensor.detach().cpu().clone(memory_format=torch.contiguous_format)


def read_document(folder: Path) -> Document:
    """Read a recipe.json.

    Raises:
        RecipeError: there is no recipe there, it is damaged, or it was written by a newer version.
    """
    path = folder / "recipe.json"
    if not path.is_file():
        inner = folder / "recipe"
        hint = f" Did you mean {inner}?" if (inner / "recipe.json").is_file() else ""
        raise RecipeError(f"{folder} is not a recipe: it holds no recipe.json.{hint}")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        version = content.get("format") if isinstance(content, dict) else None
        if isinstance(version, int) and version > FORMAT:
            raise RecipeError(
                f"{path} is of format {version}, and this version of Strop reads up to {FORMAT}: upgrade Strop."
            )
        return Document.model_validate(content)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise RecipeError(
            f"{path} cannot be read as a recipe: {where + ': ' if where else ''}{first['msg']}."
        ) from None
    except (ValueError, OSError, RecursionError) as error:
        raise RecipeError(f"{path} cannot be read as a recipe: {str(error).splitlines()[0]}.") from None


def read_tensors(path: Path, count: int) -> tuple[tuple[Mapping[str, Tensor], ...], dict[str, Tensor]]:
    """Return the tensors of each intervention, and those of the head.

    Args:
        path: of tensors.safetensors; where there is none there are no tensors.
        count: of interventions.

    Raises:
        RecipeError: the file is damaged, or holds a tensor of no intervention.
    """
    head: dict[str, Tensor] = {}
    if not path.is_file():
        return (), head
    collected: list[dict[str, Tensor]] = [{} for _ in range(count)]
    try:
        for name, tensor in load_file(path).items():
            if name.startswith(HEAD):
                head[name.removeprefix(HEAD)] = tensor
                continue
            index, _, short = name.partition(".")
            if not (index.isdecimal() and short and int(index) < count):
                raise RecipeError(f"{path} cannot be read: its tensor '{name}' belongs to no intervention.")
            collected[int(index)][short] = tensor
    except (SafetensorError, OSError) as error:
        raise RecipeError(f"{path} cannot be read: {error}.") from None
    return tuple(collected), head
