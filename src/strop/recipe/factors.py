"""Factors that travel with a recipe are believed only where they are those of the matrix they stand for."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from strop.anatomy import Anatomy, WeightSite
from strop.checkpoints import own_tensor
from strop.errors import InterventionError, RecipeError
from strop.interventions import Factored, Intervention, WeightIntervention
from strop.linalg import DecompositionCache

TOLERANCE = 1e-4
"""By what share of a matrix's norm its factors may be off; what decompositions in float32 leave is a hundredth of it."""


def refuse_other_factors(
    model: PreTrainedModel,
    anatomy: Anatomy,
    interventions: Sequence[Intervention],
    tensors: Sequence[Mapping[str, Tensor]],
    *,
    rounded: bool = False,
) -> None:
    """Raise RecipeError if factors a recipe carries are not those of the model's matrices.

    Where it edits a matrix twice, the later factors are of the matrix as the earlier edits left it.

    Args:
        model: the recipe's base; what is attached to it does not count.
        anatomy: of that model.
        interventions: the recipe's.
        tensors: what it carries for each.
        rounded: the model holds the base's matrices in a narrower dtype, so that they are off by its rounding.
    """
    for index, (entry, own) in enumerate(zip(interventions, tensors, strict=True)):
        if entry.kind != "weight" or not isinstance(entry, Factored) or not own:
            continue
        before = [
            (other, carried)
            for other, carried in zip(interventions[:index], tensors[:index], strict=True)
            if other.kind == "weight" and other.site.overlaps(entry.site)
        ]
        matrix = matrix_after(model, anatomy, entry.site, before)
        tolerance = max(TOLERANCE, torch.finfo(matrix.dtype).eps if rounded else 0.0)
        try:
            entry.check(own, (matrix.shape[0], matrix.shape[1]))
            entry.check_factors(matrix, own, tolerance=tolerance)
        except InterventionError as error:
            raise RecipeError(f"tensors.safetensors, entry {index}: {error}") from None


def matrix_after(
    model: PreTrainedModel,
    anatomy: Anatomy,
    site: WeightSite,
    edits: Sequence[tuple[WeightIntervention, Mapping[str, Tensor]]],
) -> Tensor:
    """Return a model's own matrix, (out, in), as edits of it leave it; the model is not touched.

    Args:
        model: what is attached to it does not count.
        anatomy: of that model.
        site: of the matrix.
        edits: interventions on it or a part of it, each with what it carries, in order.
    """
    with torch.no_grad():
        stored = own_tensor(model, anatomy.parameter(model, site)).detach()
        if edits:
            stored = stored.clone()
        for entry, tensors in edits:
            part = anatomy.matrix_in(stored, entry.site)
            edited = entry.edit(part, decompose=DecompositionCache().decompose, tensors=tensors)
            if edited is not part:
                anatomy.write_matrix(stored, entry.site, edited)
        return anatomy.matrix_in(stored, site)
