"""What each weight matrix of a model is, and what its spectrum says."""

import dataclasses
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from strop.anatomy import ABSENT, Anatomy, MatrixType, WeightSite, device_of, storage_of
from strop.anatomy.sites import ATTENTION
from strop.interventions import brief
from strop.linalg import DecompositionCache, Spectrum, spectrum_of
from strop.progress import SILENT, Progress


@dataclasses.dataclass(frozen=True)
class MatrixRow:
    """One weight matrix."""

    layer: int
    matrix_type: MatrixType
    module: str
    """Dotted path of the module that holds it, alone or packed with others."""
    shape: tuple[int, int]
    """(out, in)."""
    heads: int | None
    """Heads it is made of; None for an MLP matrix."""
    parameters: int
    dtype: str
    """Of the numbers that are stored; empty where its module tells none."""
    spectrum: Spectrum | None
    """None where spectra were not asked for, or the matrix cannot be read."""
    edits: str = ""
    """What the recipe that is applied does to it, in words."""
    expert: int | None = None
    """Whose it is in a mixture of experts; None where it is the block's."""
    device: str = ""
    """Where it is multiplied; empty where its module does not say."""
    stored: str = ""
    """Why it cannot be edited, such as `quantised (bitsandbytes)` or `offloaded`; empty where it can."""


def describe_matrices(
    model: PreTrainedModel,
    anatomy: Anatomy,
    *,
    layers: Collection[int] | None = None,
    matrix_types: Collection[MatrixType] | None = None,
    spectra: bool = True,
    edits: Sequence[Mapping[str, Any]] = (),
    decompositions: DecompositionCache | None = None,
    progress: Progress = SILENT,
) -> list[MatrixRow]:
    """Describe a model's weight matrices, layer by layer.

    Args:
        model: a causal language model.
        anatomy: of that model.
        layers: all by default.
        matrix_types: all by default.
        spectra: decompose each matrix for its spectrum.
        edits: of the recipe that is applied, as `Recipe.describe` gives them.
        decompositions: the cache of decompositions; the one on disk by default.
        progress: told of each matrix.

    Raises:
        SiteError: the model has no such layer or matrix type.
        UneditableWeightError: a quantised matrix does not say how large it is.
    """
    decompositions = decompositions or DecompositionCache()
    by_matrix: dict[WeightSite, list[Mapping[str, Any]]] = defaultdict(list)
    for entry in edits:
        if "matrix_type" not in entry:  # it edits hidden states
            continue
        by_matrix[dataclasses.replace(WeightSite.from_json(entry), head=None)].append(entry)
    sites = anatomy.sites(layers=layers, matrix_types=matrix_types)
    progress.start("reading the spectra" if spectra else "reading the matrices", len(sites))
    rows = []
    for site in sites:
        row = _row(model, anatomy, site, decompositions if spectra else None)
        rows.append(dataclasses.replace(row, edits=brief(by_matrix[site])))
        progress.advance()
    return rows


def _row(
    model: PreTrainedModel, anatomy: Anatomy, site: WeightSite, decompositions: DecompositionCache | None
) -> MatrixRow:
    module, name = anatomy.module(model, site), anatomy.spelling(site).parameter
    stored, device = storage_of(model, module, name), device_of(module)
    held = getattr(module, name, None)
    matrix = anatomy.read_weight(model, site) if stored in (None, ABSENT) else _without_numbers(model, anatomy, site)
    decomposed = decompositions.decompose(matrix) if decompositions is not None and stored is None else None
    return MatrixRow(
        layer=site.layer,
        matrix_type=site.matrix_type,
        module=anatomy.module_path(site),
        shape=(matrix.shape[0], matrix.shape[1]),
        heads=anatomy.heads_of(site.matrix_type) if site.matrix_type in ATTENTION else None,
        parameters=matrix.numel(),
        dtype=str(held.dtype).removeprefix("torch.") if isinstance(held, Tensor) else "",
        spectrum=spectrum_of(decomposed.singular_values) if decomposed is not None else None,
        expert=site.expert,
        device=str(device or ""),
        stored=str(stored or ""),
    )


def _without_numbers(model: PreTrainedModel, anatomy: Anatomy, site: WeightSite) -> Tensor:
    """Return a tensor of the shape of a matrix that cannot be read: as its module says, or its parameter."""
    module, name = anatomy.module(model, site), anatomy.spelling(site).parameter
    held = getattr(module, name, None)
    outputs, inputs = getattr(module, "out_features", None), getattr(module, "in_features", None)
    if isinstance(outputs, int) and isinstance(inputs, int):
        shape = [outputs, inputs]
    elif isinstance(held, Tensor) and held.is_floating_point():
        shape = [*held.shape]
    else:
        return anatomy.read_weight(model, site)  # which says why it cannot be
    return anatomy.matrix_in(torch.empty(shape, device="meta"), site)
