"""Which matrices may be edited, and how large they are."""

from transformers import PreTrainedModel

from strop.anatomy.anatomy import Anatomy
from strop.anatomy.sites import MatrixType, Stack, WeightSite
from strop.errors import SiteError


def editable_shapes(
    model: PreTrainedModel,
    anatomy: Anatomy,
    *,
    layers: tuple[int, ...] | None,
    matrix_types: tuple[MatrixType, ...] | None,
    stack: Stack | None = None,
) -> dict[WeightSite, tuple[int, int]]:
    """Return the (out, in) of every matrix that is to be considered.

    Args:
        model: whose matrices they are.
        anatomy: the model's.
        layers: all by default.
        matrix_types: all by default.
        stack: which list of blocks; the main one by default.

    Raises:
        SiteError: the model has no such stack, layer or matrix type.
        UneditableWeightError: one of the matrices must be left alone.
    """
    sites = anatomy.sites(layers=layers, matrix_types=matrix_types, stack=stack)
    if not sites:
        raise SiteError("The chosen layers and matrix types leave no matrix to edit.")
    anatomy.refuse_tied(model, sites)
    matrices = {site: anatomy.read_weight(model, site) for site in sites}
    return {site: (matrix.shape[0], matrix.shape[1]) for site, matrix in matrices.items()}
