"""A recipe on disk: recipe.json, tensors.safetensors where there are tensors, README.md. Nothing in it is executed."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import pydantic
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from strop.errors import RecipeError, reason_in, shortened
from strop.files import write_text
from strop.plain_json import parse_json, to_json

FORMAT = 1

LEVELS = "levels"
"""The name of the one tensor that the levels of all spectra are packed into."""

HEAD = "head."
"""What the names of a head's tensors begin with."""

MOST_BYTES = 64 * 2**20
"""Of a recipe.json; one that prunes every matrix of a large model has a few of these."""

LINE = 240
"""Characters of a line of recipe.json: an entry of a matrix fits."""

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int8, torch.int16)
"""What tensors may be made of; the last two are for the levels of a spectrum, and for the clusters of a reduction, alone."""

Name = Annotated[str, pydantic.StringConstraints(min_length=1, max_length=1024, pattern=r"^[^\x00-\x1f\x7f]*$")]
Digits = Annotated[str, pydantic.StringConstraints(pattern=r"^[0-9a-f]{32}$")]
Dtype = Annotated[str, pydantic.StringConstraints(pattern=r"^[a-z0-9_]{1,32}$")]
Level = Annotated[int, pydantic.Field(ge=-128, le=127)]
Side = Annotated[int, pydantic.Field(ge=0, le=2**20)]


class _Part(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", strict=True)


class BaseEntry(_Part):
    """What recipe.json says of the base model."""

    id: Name
    revision: Name | None = None
    architecture: Name
    fingerprint: Digits


class MatrixEntry(_Part):
    """What recipe.json says of a matrix."""

    shape: tuple[Side, Side]
    dtype: Dtype
    fingerprint: Digits
    rounded: dict[Dtype, Digits] = {}


class HeadEntry(_Part):
    """What recipe.json says of a classification head."""

    labels: tuple[str, ...]
    tensors: tuple[Name, ...]
    parameters: int | None = None


class LevelsEntry(_Part):
    """What recipe.json says of levels that are packed into one tensor: which there are, in ascending order."""

    values: Annotated[list[Level], pydantic.Field(min_length=1, max_length=256)]

    @pydantic.field_validator("values")
    @classmethod
    def _ascending(cls, values: list[int]) -> list[int]:
        if values != sorted(set(values)):
            raise ValueError("levels are listed in ascending order, each once")
        return values


class Document(_Part):
    """The content of recipe.json, checked."""

    format: int
    base: BaseEntry
    interventions: list[dict[str, Any]]
    matrices: list[MatrixEntry]
    levels: LevelsEntry | None = None
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
    write_text(folder / "recipe.json", to_json(dict(content), width=LINE))
    if tensors:
        own = {name: on_its_own(tensor) for name, tensor in tensors.items()}
        save_file(own, folder / "tensors.safetensors", metadata={"format": "pt"})
    write_text(folder / "README.md", card)


def on_its_own(tensor: Tensor) -> Tensor:
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
        if path.stat().st_size > MOST_BYTES:
            raise RecipeError(f"{path} is larger than {MOST_BYTES // 2**20} MiB, and no recipe.json is: copy it again.")
        text = path.read_text(encoding="utf-8")
        content = parse_json(text)
        _refuse_other_format(content, path)
        return Document.model_validate_json(text)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        where = shortened(".".join(map(str, first["loc"])))
        said = "it is no key of a recipe; take it out, or upgrade Strop" if _is_unknown(first) else first["msg"]
        raise RecipeError(
            f"{path} cannot be read as a recipe: {where + ': ' if where else ''}{shortened(said, most=200)}."
        ) from None
    except (ValueError, OSError, RecursionError) as error:
        raise RecipeError(f"{path} cannot be read as a recipe: {shortened(reason_in(error), most=200)}.") from None


def _is_unknown(error: Mapping[str, Any]) -> bool:
    return bool(error["type"] == "extra_forbidden")


def _refuse_other_format(content: object, path: Path) -> None:
    version = content.get("format") if isinstance(content, dict) else None
    if type(version) is not int or version == FORMAT:
        return
    if version > FORMAT:
        raise RecipeError(
            f"{path} is of format {version}, and this version of Strop reads up to {FORMAT}: upgrade Strop."
        )
    raise RecipeError(f"{path} is of format {version}, and formats are counted from 1: copy the recipe again.")


def read_tensors(path: Path, count: int) -> tuple[tuple[Mapping[str, Tensor], ...], dict[str, Tensor], Tensor | None]:
    """Return the tensors of each intervention, those of the head, and the packed levels where there are any.

    Args:
        path: of tensors.safetensors; where there is none there are no tensors.
        count: of interventions.

    Raises:
        RecipeError: the file is damaged, or holds a tensor of no intervention or one that is not made of finite numbers.
    """
    head: dict[str, Tensor] = {}
    levels: Tensor | None = None
    collected: list[dict[str, Tensor]] = [{} for _ in range(count)]
    if not path.exists():
        return tuple(collected), head, levels
    places = {str(index): own for index, own in enumerate(collected)}
    try:
        for name, tensor in load_file(path).items():
            if name == LEVELS:
                levels = tensor
                continue
            _refuse_strange_numbers(name, tensor, path)
            if name.startswith(HEAD):
                head[name.removeprefix(HEAD)] = tensor
                continue
            index, _, short = name.partition(".")
            if not short or index not in places:
                raise RecipeError(
                    f"{path} cannot be read: its tensor '{shortened(name, most=40)}' belongs to no intervention; copy the "
                    "recipe again."
                )
            places[index][short] = tensor
    except (SafetensorError, OSError) as error:
        raise RecipeError(
            f"{path} cannot be read: {shortened(reason_in(error), most=200)}; copy the recipe again."
        ) from None
    return tuple(collected), head, levels


def _refuse_strange_numbers(name: str, tensor: Tensor, path: Path) -> None:
    wrong = None
    if tensor.dtype not in DTYPES:
        wrong = f"is made of {str(tensor.dtype).removeprefix('torch.')}, and a recipe holds floating-point numbers"
    elif tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
        wrong = "holds NaN or infinity"
    if wrong is not None:
        raise RecipeError(
            f"{path}: its tensor '{shortened(name, most=40)}' {wrong}; copy the recipe again, or make it anew."
        )
