"""What a run begins with, and what it ends with before anyone has looked at test."""

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager

from torch import Tensor
from transformers import PreTrainedModel

from strop.anatomy import Anatomy
from strop.interventions import Head, Intervention, applied_interventions
from strop.interventions.interfaces import Decompose
from strop.proving.trials import Trial
from strop.recipe import Recipe
from strop.runs import GuardReading


@dataclasses.dataclass(frozen=True, eq=False)
class Start:
    """What a run begins from: interventions, what they carry, and a head. Nothing by default."""

    interventions: tuple[Intervention, ...] = ()
    """In the order they are applied."""
    tensors: tuple[Mapping[str, Tensor], ...] = ()
    """For each intervention, what it carries."""
    head: Head | None = None
    """A classification head."""

    def __post_init__(self) -> None:
        if not self.tensors:
            object.__setattr__(self, "tensors", ({},) * len(self.interventions))

    @classmethod
    def of(cls, recipe: Recipe | None) -> "Start":
        """Return what a recipe begins with; nothing without one."""
        return cls() if recipe is None else cls(recipe.interventions, recipe.tensors, recipe.head)

    def __bool__(self) -> bool:
        return bool(self.interventions) or self.head is not None

    @property
    def holds_for_one_length(self) -> bool:
        """Whether it leaves biases behind that differ by position, so that it holds for sequences of one length only."""
        shifts = (
            entry.output_shift(own)
            for entry, own in zip(self.interventions, self.tensors, strict=True)
            if entry.kind == "weight"
        )
        return any(shift is not None and shift.ndim == 2 for shift in shifts)

    def applied(
        self, model: PreTrainedModel, *, anatomy: Anatomy, decompose: Decompose
    ) -> AbstractContextManager[object]:
        """Put it on a model for the length of a `with` block."""
        if not self:
            return contextlib.nullcontext()
        return applied_interventions(
            model, self.interventions, anatomy=anatomy, tensors=self.tensors, decompose=decompose, head=self.head
        )

    def then(self, interventions: Sequence[Intervention], tensors: Sequence[Mapping[str, Tensor]] = ()) -> "Start":
        """Return it with more interventions behind its own.

        Args:
            interventions: in the order they are applied.
            tensors: for each of them, what it carries; nothing by default.
        """
        carried = tuple(tensors) or ({},) * len(interventions)
        return Start((*self.interventions, *interventions), (*self.tensors, *carried), self.head)


@dataclasses.dataclass(frozen=True, eq=False)
class Choice:
    """What the select split chose: all that a recipe needs, and the figures it was chosen by."""

    edits: Start
    """The choice, what the run began with included; nothing where nothing helped."""
    unedited: Trial
    """The model as it was, on select."""
    best: Trial
    """The choice on select; `unedited`, or `started`, where nothing helped."""
    tokens: int
    """Tokens read on the way to it, as if each pass had run the whole model, and nothing had been kept from another run."""
    start: Start = dataclasses.field(default_factory=Start)
    """What the run began with, where its gain over that is to be told."""
    started: Trial | None = None
    """The model with that, on select; None where the run began with nothing."""
    guards: tuple[GuardReading, ...] = ()
    """What the guards measured of base and choice."""
    cut_short: bool = False
    """Whoever chose left something out for the budget's sake, though some of it may be left."""
    shots: int | None = None
    """How many solved train rows the choice puts before each prompt; None for what the task's own prompts have."""
