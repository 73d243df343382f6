"""What every intervention can do."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from torch import Tensor

from strop.anatomy import WeightSite
from strop.interventions.low_rank_edit import LowRankEdit
from strop.linalg import SingularValueDecomposition

Decompose = Callable[[Tensor], SingularValueDecomposition]


class WeightIntervention(Protocol):
    """A frozen decision about one weight matrix."""

    @property
    def method(self) -> str:
        """The method's name in a recipe."""
        ...

    @property
    def site(self) -> WeightSite:
        """The matrix it edits."""
        ...

    def edit(self, matrix: Tensor, *, decompose: Decompose, tensors: Mapping[str, Tensor]) -> Tensor:
        """Return the edited matrix.

        Args:
            matrix: (out, in), as the model holds it; left as it is.
            decompose: how to come by its decomposition.
            tensors: what the recipe carries for this intervention, by name; empty for a bare decision.

        Returns:
            (out, in), in the matrix's dtype and on its device.
        """
        ...

    def output_shift(self, tensors: Mapping[str, Tensor]) -> Tensor | None:
        """Return what the edit adds to the matrix's output: (out,), or (positions, out) for one length; None for nothing.

        Args:
            tensors: what the recipe carries for this intervention, by name.
        """
        ...

    def factors(self, matrix: Tensor, *, decompose: Decompose) -> dict[str, Tensor]:
        """Return tensors that let `edit` do without a decomposition."""
        ...

    def to_json(self, shape: tuple[int, int]) -> dict[str, Any]:
        """Return what a recipe writes; `shape` is the matrix's, for figures a reader wants beside the decision."""
        ...


Intervention = WeightIntervention | LowRankEdit


def matrix_of(intervention: Intervention) -> WeightSite:
    """Return the matrix by which a recipe knows an intervention's place: the one it edits, or that writes its states."""
    return intervention.site.writer if isinstance(intervention, LowRankEdit) else intervention.site


def site_from_json(entry: Mapping[str, Any]) -> WeightSite:
    """Return the address an entry of a recipe names; see `WeightSite.from_json`."""
    return WeightSite.from_json(entry)
