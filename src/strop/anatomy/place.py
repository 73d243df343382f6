"""Where one site's matrix is stored: in which parameter of which module, and which of its rows and columns."""

import dataclasses
import operator

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from strop.anatomy.families import Family, Spelling
from strop.anatomy.sites import MatrixType, WeightSite
from strop.anatomy.sizes import StackSizes, refuse_router
from strop.anatomy.slices import columns_view, matrix_view, rows_view
from strop.anatomy.storage import ABSENT, storage_of
from strop.errors import AnatomyError, UneditableWeightError


@dataclasses.dataclass(frozen=True, eq=False)
class Place:
    """Where a site's matrix is stored, as a value: every method that reads weights is handed the model."""

    site: WeightSite
    spelling: Spelling
    sizes: StackSizes
    """Of the site's stack."""
    family: Family

    @property
    def module_path(self) -> str:
        """The module's dotted name inside the model."""
        inside = self.spelling.module_path(self.site.expert)
        return f"{self.family.paths[self.site.stack]}.{self.site.layer}.{inside}"

    def module(self, model: PreTrainedModel) -> nn.Module:
        """Return the module that holds the matrix, alone or packed with others.

        Raises:
            AnatomyError: the block has no such module.
        """
        try:
            module: nn.Module = operator.attrgetter(self.module_path)(model)
        except AttributeError:
            inside = self.spelling.module_path(self.site.expert)
            raise AnatomyError(
                f"{self.site}: the block has no {inside}, where a {self.family.name} block keeps it."
            ) from None
        return module

    def parameter(self, model: PreTrainedModel) -> nn.Parameter:
        """Return the parameter that holds the matrix, alone or with others.

        Raises:
            UneditableWeightError: the weight is quantised, offloaded, or not a floating-point matrix.
            AnatomyError: there is no such module, or it has no such parameter.
        """
        site, spelling, module = self.site, self.spelling, self.module(model)
        name = f"{self.module_path}.{spelling.parameter}"
        stored = storage_of(model, module, spelling.parameter)
        if stored == ABSENT:
            raise AnatomyError(
                f"{site}: {self.module_path} has no {spelling.parameter}; name the module that holds the matrix."
            )
        if stored is not None:
            raise UneditableWeightError(stored.refusal(name))
        weight: nn.Parameter = getattr(module, spelling.parameter)
        if weight.ndim != (3 if spelling.experts == "stacked" else 2):
            wanted = "the matrices of several experts" if spelling.experts else "one matrix"
            raise UneditableWeightError(f"{name} has the shape {tuple(weight.shape)}, which is not that of {wanted}.")
        if site.matrix_type is MatrixType.GATE and not spelling.has_experts:
            refuse_router(model, weight, name)
        return weight

    def refuse_raw(self) -> None:
        """Raise AnatomyError if no module's inputs and outputs are those of the matrix."""
        site, spelling = self.site, self.spelling
        if not spelling.is_tappable:
            of = "of one expert " if spelling.experts else ""
            inside = f"{self.module_path} computes it inside from its parameter {spelling.parameter}"
            never = (
                f"the block calls {self.module_path} for more than its tokens, or reads its weight and never calls it"
            )
            raise AnatomyError(
                f"{site}: what goes in and out {of}cannot be seen, for {inside if spelling.called else never}; choose other "
                "matrices, or what reads the weights alone, such as a rank reduction."
            )

    def matrix_in(self, parameter: Tensor) -> Tensor:
        """Return the matrix inside a tensor laid out as its parameter is (the weight, or its gradient).

        Returns:
            (out, in); a view of `parameter` wherever the packing allows, else a copy.

        Raises:
            UneditableWeightError: the tensor's sizes are not those of what it is said to hold.
        """
        return matrix_view(parameter, self.site, self.spelling, self.sizes).flatten(0, -2)

    def write_matrix(self, parameter: Tensor, matrix: Tensor) -> None:
        """Write a matrix (out, in) into its place in a tensor laid out as its parameter is.

        Raises:
            UneditableWeightError: the tensor's sizes are not those of what it is said to hold.
        """
        place = matrix_view(parameter, self.site, self.spelling, self.sizes)
        place.copy_(matrix.reshape(place.shape))

    def read(self, model: PreTrainedModel) -> Tensor:
        """Return the matrix (out, in), detached, in the model's dtype."""
        with torch.no_grad():
            return self.matrix_in(self.parameter(model).detach())

    def outputs_in(self, outputs: Tensor) -> Tensor:
        """Return the share of a module's output (…, features), or of its gradient, that the matrix makes.

        Returns:
            (…, out).

        Raises:
            AnatomyError: no module's output is that of the matrix.
            UneditableWeightError: the features are not those of what the module is said to hold.
        """
        self.refuse_raw()
        features_first = outputs.movedim(-1, 0)
        flat = features_first.reshape(features_first.shape[0], -1)
        chosen = rows_view(flat, self.site, self.spelling, self.sizes).flatten(0, -2)
        return chosen.reshape(chosen.shape[0], *features_first.shape[1:]).movedim(0, -1)

    def output_features(self, parameter: Tensor) -> tuple[int, Tensor]:
        """Return how many outputs the module makes that holds the matrix, and which of them the matrix makes.

        Args:
            parameter: the module's weight.

        Returns:
            The count, and (out,) indices below it, one for each row of the matrix.

        Raises:
            AnatomyError: no module's output is that of the matrix.
        """
        count = parameter.shape[1 if self.spelling.transposed else 0]
        return count, self.outputs_in(torch.arange(count, device=parameter.device))

    def inputs_in(self, inputs: Tensor) -> Tensor:
        """Return the share of a module's input (…, in) that the matrix reads: one head's, or all.

        Raises:
            AnatomyError: no module's input is that of the matrix.
        """
        self.refuse_raw()
        return columns_view(inputs, self.site, self.sizes)
