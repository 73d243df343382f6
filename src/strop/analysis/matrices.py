"""What each weight matrix of a model is, and what its spectrum says."""

import dataclasses
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from transformers import PreTrainedModel

from strop.anatomy import Anatomy, MatrixType, WeightSite
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
    spectrum: Spectrum | None
    """None where spectra were not asked for."""
    edits: str = ""
    """What the recipe that is applied does to it, in words."""
    expert: int | None = None
    """Whose it is in a mixture of experts; None where it is the block's."""


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
        UneditableWeightError: the weights are quantised.
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
        matrix = anatomy.read_weight(model, site)
        rows.append(
            MatrixRow(
                layer=site.layer,
                matrix_type=site.matrix_type,
                module=anatomy.module_path(site),
                shape=(matrix.shape[0], matrix.shape[1]),
                heads=anatomy.heads_of(site.matrix_type) if site.matrix_type in ATTENTION else None,
                parameters=matrix.numel(),
                dtype=str(matrix.dtype).removeprefix("torch."),
                spectrum=spectrum_of(decompositions.decompose(matrix).singular_values) if spectra else None,
                edits=brief(by_matrix[site]),
                expert=site.expert,
            )
        )
        progress.advance()
    return rows
