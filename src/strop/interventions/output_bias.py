"""The smallest of learned edits: a vector added to what a matrix makes, at every token."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from strop.anatomy import WeightSite
from strop.errors import InterventionError
from strop.interventions.checks import is_finite, refuse_unknown
from strop.interventions.interfaces import Decompose, Entry, Shape, shape_of_size


@dataclasses.dataclass(frozen=True)
class OutputBias:
    """Add a learned vector to one matrix's output, at every token.

    y = W x + b  (training biases alone, BitFit: arXiv 2106.10199; here of matrices that had none as well)

    b is a tensor of the recipe: `bias`, (out,). On the matrix that a block ends with, `down`, it shifts what leaves the block.

    Args:
        site: the matrix, or one head's share of it.

    >>> from strop.anatomy import MatrixType
    >>> print(OutputBias(WeightSite(3, MatrixType.DOWN)))
    layer 3 down, a learned bias
    """

    site: WeightSite
    method: ClassVar[str] = "bias"
    kind: ClassVar[Literal["weight"]] = "weight"
    learned_tensors: ClassVar[tuple[str, ...]] = ("bias",)

    def __str__(self) -> str:
        return f"{self.site}, a learned bias"

    def check(self, tensors: Mapping[str, Tensor], shape: Shape) -> None:
        """Make sure that there is one finite number for each output.

        Raises:
            InterventionError: it is anything else.
        """
        refuse_unknown(tensors, self.learned_tensors, where=str(self.site), method=self.method)
        bias = tensors.get("bias")
        if bias is None:
            raise InterventionError(f"{self.site}: the recipe's bias is missing; copy the whole folder, or train anew.")
        if tuple(bias.shape) != (shape[0],) or not is_finite(bias):
            raise InterventionError(
                f"{self.site}: its bias is to be {shape[0]} finite numbers, not a tensor of shape {tuple(bias.shape)}."
            )

    def edit(self, matrix: Tensor, *, decompose: Decompose, tensors: Mapping[str, Tensor]) -> Tensor:
        """Return the matrix, (out, in): it stays as it is."""
        return matrix

    def output_change(self, inputs: Tensor, tensors: Mapping[str, Tensor]) -> Tensor:
        """Return zeros, (..., out): what is added does not depend on the inputs."""
        return inputs.new_zeros(*inputs.shape[:-1], tensors["bias"].shape[0])

    def output_shift(self, tensors: Mapping[str, Tensor]) -> Tensor | None:
        """Return b, (out,)."""
        return tensors["bias"]

    def lessened(self, tensors: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
        """Return share · b."""
        return {"bias": share * tensors["bias"]}

    def precomputed(self, matrix: Tensor, *, decompose: Decompose) -> dict[str, Tensor]:
        """Return nothing: no decomposition is needed."""
        return {}

    def parameter_count(self, shape: Shape) -> int:
        """Return one for each output."""
        return shape[0]

    def initial_tensors(self, shape: Shape | int, *, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Return zeros: learning begins with the model as it is."""
        return {"bias": torch.zeros(shape_of_size(shape)[0])}

    def obstacle_to_baking(self, tensors: Mapping[str, Tensor]) -> str | None:
        """Return None: a bias is a bias, where the architecture has room for it."""
        return None

    def to_json(self, shape: Shape) -> dict[str, Any]:
        """Return what a recipe writes."""
        return {"method": self.method, **self.site.to_json(), "outputs": shape[0]}

    @classmethod
    def from_json(cls, entry: Entry) -> "OutputBias":
        """Return the intervention a recipe's entry describes."""
        return cls(WeightSite.from_json(entry))

    @classmethod
    def summarize(cls, entries: Sequence[Entry]) -> dict[int, str]:
        """Return one line for all of them."""
        kinds = sorted({entry["matrix_type"] for entry in entries})
        layers = {entry["layer"] for entry in entries}
        where = f"{len(layers)} layers" if len(layers) > 1 else f"layer {entries[0]['layer']}"
        count = sum(entry["outputs"] for entry in entries)
        return {0: f"a bias on {', '.join(kinds)} in {where} ({count:,} learned parameters)"}

    @classmethod
    def brief(cls, entries: Sequence[Entry]) -> str:
        """Return how large a bias is added."""
        return f"a bias of {entries[0]['outputs']:,}"
