"""The levels of a recipe's spectra on disk: all in one tensor, each in as few bits as tell those there are apart."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from strop.errors import RecipeError
from strop.interventions import Intervention, SpectrumScaling
from strop.recipe.files import LEVELS
from strop.recipe.identity import MatrixIdentity

Tensors = Mapping[str, Tensor]


def packed(
    interventions: Sequence[Intervention], tensors: Sequence[Tensors]
) -> tuple[list[int], Tensor, list[Tensors]] | None:
    """Return the levels of all spectra in one tensor, the least bits first, and what is left of the tensors.

    A level is written as its index among `values`, those that occur, in ascending order.

    Args:
        interventions: of a recipe.
        tensors: for each, what it carries.

    Returns:
        `values`, the packed bytes, (bytes,) uint8, and for each intervention its other tensors; None where there are no
        levels, or one spectrum that has steps is without.
    """
    stepped = [own for entry, own in zip(interventions, tensors, strict=True) if _has_steps(entry)]
    if not stepped or not all(LEVELS in own and own[LEVELS].dtype == torch.int8 for own in stepped):
        return None
    levels = np.concatenate([own[LEVELS].detach().cpu().numpy() for own in stepped])
    values, codes = np.unique(levels, return_inverse=True)
    bits = (codes[:, None] >> np.arange(_bits_of(len(values)))) & 1
    together = torch.from_numpy(np.packbits(bits.astype(np.uint8), bitorder="little"))
    left: list[Tensors] = [
        {name: tensor for name, tensor in own.items() if not (_has_steps(entry) and name == LEVELS)}
        for entry, own in zip(interventions, tensors, strict=True)
    ]
    return values.tolist(), together, left


def with_levels(
    tensors: Sequence[Tensors],
    together: Tensor | None,
    values: Sequence[int] | None,
    interventions: Sequence[Intervention],
    matrices: Sequence[MatrixIdentity],
    path: Path,
) -> tuple[Tensors, ...]:
    """Return what each intervention carries, its levels unpacked; levels that are not packed stay as they are.

    Args:
        tensors: for each intervention, what tensors.safetensors holds of its own.
        together: the packed levels; None where that file holds none.
        values: the levels there are, as recipe.json lists them; None where it lists none.
        interventions: of the recipe.
        matrices: for each, the matrix it edits.
        path: of tensors.safetensors, for messages.

    Raises:
        RecipeError: there are packed levels in only one of the two files, or beside others, or they are not those of these
            matrices.
    """
    if values is None and together is None:
        return tuple(tensors)
    counts = [
        entry.count(matrix.shape) if isinstance(entry, SpectrumScaling) and entry.step is not None else 0
        for entry, matrix in zip(interventions, matrices, strict=True)
    ]
    if values is None or together is None or not any(counts) or any(LEVELS in own for own in tensors):
        raise RecipeError(
            f"{path}: packed levels stand in it and in recipe.json, for entries with a step, and no others beside them; copy "
            "the recipe again."
        )
    levels = np.split(_unpacked(together, values, sum(counts), path), np.cumsum(counts)[:-1])
    return tuple(
        {**own, LEVELS: torch.from_numpy(part.copy())} if _has_steps(entry) else own
        for entry, own, part in zip(interventions, tensors, levels, strict=True)
    )


def _unpacked(together: Tensor, values: Sequence[int], count: int, path: Path) -> NDArray[np.int8]:
    width = _bits_of(len(values))
    size = (count * width + 7) // 8
    if together.dtype != torch.uint8 or tuple(together.shape) != (size,):
        raise RecipeError(
            f"{path}: {count:,} levels of {width} bit{'s' if width > 1 else ''} each are {size:,} bytes, and it holds "
            f"{tuple(together.shape)} of {str(together.dtype).removeprefix('torch.')}; copy the recipe again."
        )
    bits = np.unpackbits(together.numpy(), bitorder="little")
    codes = bits[: count * width].reshape(count, width) @ (1 << np.arange(width))
    if bits[count * width :].any() or bool((codes >= len(values)).any()):
        raise RecipeError(
            f"{path}: its levels name others than the {len(values)} that recipe.json lists; copy the recipe again."
        )
    return np.asarray(values, dtype=np.int8)[codes]


def _has_steps(entry: Intervention) -> bool:
    return isinstance(entry, SpectrumScaling) and entry.step is not None


def _bits_of(values: int) -> int:
    """Return how many bits tell so many values apart: 1 or more."""
    return max(1, (values - 1).bit_length())
