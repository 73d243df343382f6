"""What a method can do: one small interface for edits of weights, and one for edits of hidden states.

A class that has either is a method once it stands in `METHODS`, or was given to `register_method`; nothing else in the
library knows methods by name.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from strop.anatomy import StreamSite, WeightSite
from strop.interventions.factored_change import FactoredChange
from strop.interventions.positions import Positions
from strop.linalg import SingularValueDecomposition

Decompose = Callable[[Tensor], SingularValueDecomposition]
Entry = Mapping[str, Any]
"""What a recipe's JSON holds of an intervention."""
Shape = tuple[int, int]
"""(out, in) of the matrix an intervention edits, or that writes the hidden states it edits: these are of size out."""


def shape_of_size(size: "Shape | int") -> Shape:
    """Return a shape as it is, and for a single number that of a square matrix: hidden states of size d are d x d's."""
    return (size, size) if isinstance(size, int) else size


@runtime_checkable
class DecomposesTogether(Protocol):
    """A `Decompose` that can make the decompositions of several matrices at once."""

    def __call__(self, matrix: Tensor, /) -> SingularValueDecomposition:
        """Return the decomposition of one matrix."""
        ...

    def together(self, matrices: Sequence[Tensor]) -> list[SingularValueDecomposition]:
        """Return the decompositions of matrices of one shape, dtype and device."""
        ...


class _Common(Protocol):
    @property
    def method(self) -> str:
        """The method's name in a recipe."""
        ...

    @property
    def learned_tensors(self) -> tuple[str, ...]:
        """The names of the tensors it learns; none where it is found without gradients."""
        ...

    def parameter_count(self, shape: Shape) -> int:
        """Return how many numbers it learns."""
        ...

    def initial_tensors(self, shape: Shape, *, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Return the tensors learning begins with; none where nothing is learned.

        Args:
            shape: of the matrix.
            generator: the source of randomness.
        """
        ...

    def check(self, tensors: Mapping[str, Tensor], shape: Shape) -> None:
        """Make sure that tensors are what this intervention carries.

        Args:
            tensors: by name; empty for a bare decision.
            shape: of the matrix.

        Raises:
            InterventionError: one is missing, of another name or shape, or not made of finite numbers.
        """
        ...

    def obstacle_to_baking(self, tensors: Mapping[str, Tensor]) -> str | None:
        """Return why a checkpoint's weights cannot hold it, as a sentence that goes on from its address; None where they can."""
        ...

    def to_json(self, shape: Shape) -> dict[str, Any]:
        """Return what a recipe writes, `method` and the site's own entries among it.

        Args:
            shape: of the matrix, for figures a reader wants beside the decision.
        """
        ...

    @classmethod
    def from_json(cls, entry: Entry) -> Any:
        """Return the intervention that an entry describes.

        Raises:
            StropError: its fields do not make one; KeyError, TypeError and ValueError do as well.
        """
        ...

    @classmethod
    def summarize(cls, entries: Sequence[Entry]) -> Mapping[int, str]:
        """Return lines that say what entries of this method do, each under the index of the first entry it speaks of."""
        ...

    @classmethod
    def brief(cls, entries: Sequence[Entry]) -> str:
        """Return in a few words what entries of this method do to one matrix; nothing where they leave it alone."""
        ...


class WeightIntervention(_Common, Protocol):
    """A frozen decision about one weight matrix."""

    @property
    def kind(self) -> Literal["weight"]:
        """What it edits."""
        ...

    @property
    def site(self) -> WeightSite:
        """The matrix it edits."""
        ...

    def edit(self, matrix: Tensor, *, decompose: Decompose, tensors: Mapping[str, Tensor]) -> Tensor:
        """Return the edited matrix.

        Where it learns, gradients reach its learned tensors through what it returns.

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

    def precomputed(self, matrix: Tensor, *, decompose: Decompose) -> dict[str, Tensor]:
        """Return tensors that, among those given to `edit`, let it do without a decomposition; none where it needs none."""
        ...


@runtime_checkable
class ChangesOutputs(Protocol):
    """A WeightIntervention that can say what it changes of a matrix's outputs without forming the edited matrix."""

    def output_change(self, inputs: Tensor, tensors: Mapping[str, Tensor]) -> Tensor:
        """Return x (edit(W) − W)ᵀ, (..., out), differentiable in its learned tensors.

        Args:
            inputs: x, (..., in).
            tensors: its own, and what `precomputed` returned of the matrix.
        """
        ...


@runtime_checkable
class MakesOutputs(Protocol):
    """A WeightIntervention that can say what the edited matrix makes without that matrix, or the one before it."""

    def output(self, inputs: Tensor, tensors: Mapping[str, Tensor]) -> Tensor | None:
        """Return x edit(W)ᵀ, (..., out), differentiable in its learned tensors; None where factors are not all of W.

        Args:
            inputs: x, (..., in).
            tensors: its own, and what `precomputed` returned of the matrix.
        """
        ...


@runtime_checkable
class Factored(Protocol):
    """A WeightIntervention that can tell whether what `precomputed` returned is of a matrix, without decomposing it."""

    def check_factors(self, matrix: Tensor, tensors: Mapping[str, Tensor], *, tolerance: float) -> None:
        """Make sure that factors among its tensors, where there are any, are those of a matrix.

        Args:
            matrix: (out, in), as `edit` is given it.
            tensors: its own, which have passed `check`.
            tolerance: how far they may be off, as a share of the matrix's norm.

        Raises:
            InterventionError: they are another matrix's, or other components of it.
        """
        ...


@runtime_checkable
class Bounded(Protocol):
    """An intervention whose learned tensors keep within bounds that no gradient knows."""

    def held_in_bounds(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return learned tensors with every number moved to the nearest one that is allowed."""
        ...


@runtime_checkable
class ChangesByFactors(Protocol):
    """A WeightIntervention that can say what it changes of a matrix as a product of two factors."""

    def factored_change(
        self, matrix: Tensor, *, decompose: Decompose, tensors: Mapping[str, Tensor]
    ) -> FactoredChange | None:
        """Return edit(W) − W; None where its factors would be no smaller than W.

        Args:
            matrix: (out, in), as `edit` is given it.
            decompose: how to come by its decomposition.
            tensors: what the recipe carries for this intervention, by name.
        """
        ...


@runtime_checkable
class Additive(Protocol):
    """A WeightIntervention that can be one with another of its method that was found on the same matrix."""

    def plus(
        self, other: Any, mine: Mapping[str, Tensor], theirs: Mapping[str, Tensor]
    ) -> tuple["WeightIntervention", dict[str, Tensor]] | None:
        """Return the sum of both changes and its tensors; None where they do not add up.

        Args:
            other: of the same method, at a site that overlaps this one's.
            mine: the tensors of this one.
            theirs: the tensors of the other.
        """
        ...


@runtime_checkable
class Lessens(Protocol):
    """An intervention that learns and can change less: a share of all that it has learned to change."""

    def lessened(self, tensors: Mapping[str, Tensor], share: float) -> dict[str, Tensor] | None:
        """Return the learned tensors of share times its change, for every input; None where its formula holds no such thing.

        Args:
            tensors: its own, which have passed `check`.
            share: from 0, nothing, to 1, what there is.
        """
        ...


@runtime_checkable
class ScalesSpectrum(Protocol):
    """A WeightIntervention that multiplies the matrix's singular values, each by a number of its own."""

    def spectrum_scales(self, tensors: Mapping[str, Tensor], shape: Shape) -> Tensor | None:
        """Return by what each is multiplied, (min(out, in),): 1 where it stays, 0 where it is removed; None if it does otherwise.

        Args:
            tensors: its own, which have passed `check`.
            shape: of the matrix.
        """
        ...


class StateModule(Protocol):
    """What a StateIntervention edits with: an nn.Module, (tokens, hidden) → (tokens, hidden)."""

    @property
    def tensors(self) -> dict[str, Tensor]:
        """What a recipe keeps of it, detached."""
        ...

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over other tensors, in place.

        Raises:
            InterventionError: they do not fit.
        """
        ...


class StateIntervention(_Common, Protocol):
    """A frozen decision about the hidden states of some tokens."""

    @property
    def kind(self) -> Literal["state"]:
        """What it edits."""
        ...

    @property
    def site(self) -> StreamSite:
        """The hidden states it edits."""
        ...

    @property
    def positions(self) -> Positions:
        """The tokens it edits."""
        ...

    def module(self, tensors: Mapping[str, Tensor], hidden_size: int) -> nn.Module:
        """Return a `StateModule` that edits the states of the tokens it is given, in their dtype.

        Args:
            tensors: what the recipe carries for this intervention, by name.
            hidden_size: of the states.

        Raises:
            InterventionError: the tensors do not fit.
        """
        ...


Intervention = WeightIntervention | StateIntervention
