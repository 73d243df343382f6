"""A recipe on disk: recipe.json, tensors.safetensors where there are tensors, README.md. Nothing in it is executed."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pydantic
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from strop.checkpoints import BaseIdentity
from strop.errors import RecipeError
from strop.files import making_folder, write_json, write_text
from strop.interventions import Head, intervention_from_json
from strop.recipe.card import model_card
from strop.recipe.document import FORMAT, MatrixIdentity, Recipe

HEAD = "head."
"""What the names of a head's tensors begin with."""


class _Base(pydantic.BaseModel):
    id: str
    revision: str | None = None
    architecture: str
    fingerprint: str


class _Matrix(pydantic.BaseModel):
    shape: tuple[int, int]
    dtype: str
    fingerprint: str


class _Head(pydantic.BaseModel):
    labels: tuple[str, ...]
    tensors: tuple[str, ...]


class _Document(pydantic.BaseModel):
    format: int
    base: _Base
    interventions: list[dict[str, Any]]
    matrices: list[_Matrix]
    provenance: dict[str, Any] = {}
    head: _Head | None = None


def write_recipe(recipe: Recipe, folder: Path) -> Path:
    """Write a recipe as a folder that appears whole or not at all.

    Args:
        recipe: what to write.
        folder: must not hold anything yet.

    Raises:
        UsageError: the folder is there already and is not empty.
    """
    with making_folder(folder) as temporary:
        fill_recipe_folder(recipe, temporary)
    return folder


def fill_recipe_folder(recipe: Recipe, folder: Path) -> None:
    """Write a recipe's files into a folder that is there; others may lie beside them."""
    write_json(
        folder / "recipe.json",
        {
            "format": FORMAT,
            "base": dataclasses.asdict(recipe.base),
            "interventions": recipe.describe(),
            "matrices": [dataclasses.asdict(matrix) for matrix in recipe.matrices],
            **({"head": recipe.describe_head()} if recipe.head is not None else {}),
            "provenance": dict(recipe.provenance),
        },
    )
    named = {
        f"{index}.{name}": _on_its_own(tensor)
        for index, tensors in enumerate(recipe.tensors)
        for name, tensor in tensors.items()
    }
    if recipe.head is not None:
        named |= {f"{HEAD}{name}": _on_its_own(tensor) for name, tensor in recipe.head.tensors.items()}
    if named:
        save_file(named, folder / "tensors.safetensors", metadata={"format": "pt"})
    write_text(folder / "README.md", model_card(recipe))


def _on_its_own(tensor: Tensor) -> Tensor:
    """Return a copy that shares no memory with another tensor, for safetensors writes none that does."""
    return tensor.detach().cpu().clone(memory_format=torch.contiguous_format)


def read_recipe(folder: Path) -> Recipe:
    """Read a recipe folder.

    Args:
        folder: as `write_recipe` or a search left it.

    Raises:
        RecipeError: there is no recipe there, it is damaged, or it was written by a newer version.
    """
    document = _read_document(folder)
    interventions = tuple(intervention_from_json(entry) for entry in document.interventions)
    tensors, of_head = _read_tensors(folder / "tensors.safetensors", len(interventions))
    return Recipe(
        BaseIdentity(**document.base.model_dump()),
        interventions,
        tuple(MatrixIdentity(**matrix.model_dump()) for matrix in document.matrices),
        tensors,
        document.provenance,
        _head(document.head, of_head, folder),
    )


def _head(entry: _Head | None, tensors: Mapping[str, Tensor], folder: Path) -> Head | None:
    wanted = set(entry.tensors) if entry is not None else set()
    if wanted != set(tensors):
        name = min(wanted ^ set(tensors))
        raise RecipeError(
            f"{folder} cannot be read: its head's tensor '{name}' is in only one of recipe.json and tensors.safetensors."
        )
    return Head(entry.labels, tensors) if entry is not None else None


def _read_document(folder: Path) -> _Document:
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
        return _Document.model_validate(content)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise RecipeError(
            f"{path} cannot be read as a recipe: {where + ': ' if where else ''}{first['msg']}."
        ) from None
    except (ValueError, OSError, RecursionError) as error:
        raise RecipeError(f"{path} cannot be read as a recipe: {str(error).splitlines()[0]}.") from None


def _read_tensors(path: Path, count: int) -> tuple[tuple[Mapping[str, Tensor], ...], dict[str, Tensor]]:
    """Return the tensors of each intervention, and those of the head."""
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
