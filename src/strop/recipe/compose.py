"""Two recipes of one base in one, where that is exact: neither edits what the other does, or their changes add up."""

from collections.abc import Mapping
from typing import Any, Protocol

from torch import Tensor

from strop.checkpoints import BaseIdentity
from strop.errors import BaseMismatchError, InterventionError, RecipeError
from strop.interventions import Additive, Head, Intervention
from strop.recipe.identity import MatrixIdentity

Entry = tuple[Intervention, MatrixIdentity, Mapping[str, Tensor]]
"""An intervention, with the matrix it edits and what it carries."""


class Part(Protocol):
    """What of a recipe says whether it can be added to another."""

    @property
    def base(self) -> BaseIdentity:
        """The model it was made for."""
        ...

    @property
    def interventions(self) -> tuple[Intervention, ...]:
        """In the order they are applied."""
        ...

    @property
    def matrices(self) -> tuple[MatrixIdentity, ...]:
        """For each, the matrix it edits."""
        ...

    @property
    def tensors(self) -> tuple[Mapping[str, Tensor], ...]:
        """For each, what it carries."""
        ...

    @property
    def provenance(self) -> Mapping[str, Any]:
        """How it was made."""
        ...

    @property
    def head(self) -> Head | None:
        """A classification head, where it carries one."""
        ...


def composed(first: Part, second: Part) -> tuple[Entry, ...]:
    """Return the entries of two recipes, one after the other, where that is what both say.

    Two edits of a matrix that nothing else edits become one where their method adds them up: scalings of the same singular
    values, for both changes are along the base's own singular vectors, and two LoRAs.

    Args:
        first: is applied first.
        second: was found on the base, and not on what the first makes of it.

    Raises:
        BaseMismatchError: they were made for different bases.
        RecipeError: both edit one place otherwise, or beyond what a change may be, or both carry a classification head.
    """
    of_a, of_b = first.base, second.base
    if (of_a.architecture, of_a.fingerprint) != (of_b.architecture, of_b.fingerprint):
        different = f"{of_a.name} and {of_b.name}" if of_a.name != of_b.name else f"different weights of {of_a.name}"
        raise BaseMismatchError(f"Only recipes of one base can be added, and these were made for {different}.")
    if first.head is not None and second.head is not None:
        raise RecipeError(
            "Both recipes carry a classification head, and a model has one: train the second after the first."
        )
    mine, theirs = _entries_of(first), _entries_of(second)
    found = []
    for entry in mine:
        met = [other for other in theirs if meet(entry[0], other[0])]
        lone = len(met) == 1 and sum(meet(own[0], met[0][0]) for own in mine) == 1
        both = _sum_of(entry, met[0]) if lone else None
        if met and both is None:
            raise RecipeError(
                f"Both recipes edit {met[0][0].site}, and the second does not know what the first leaves there: find it "
                "after the first (RunOptions(after=first), --after), or keep one of them."
            )
        found.append(both or entry)
    return (*found, *(other for other in theirs if not any(meet(entry[0], other[0]) for entry in mine)))


def _entries_of(part: Part) -> tuple[Entry, ...]:
    return tuple(zip(part.interventions, part.matrices, part.tensors, strict=True))


def _sum_of(mine: Entry, other: Entry) -> Entry | None:
    """Return two edits of one method that adds them up as one; None where they are not that."""
    (first, matrix, tensors), (second, _, others) = mine, other
    if type(first) is not type(second) or not isinstance(first, Additive):
        return None
    both = first.plus(second, tensors, others)
    if both is None:
        return None
    try:
        both[0].check(both[1], matrix.shape)
    except InterventionError as error:
        raise RecipeError(f"The recipes cannot be added: {error}") from None
    return both[0], matrix, both[1]


def meet(mine: Intervention, other: Intervention) -> bool:
    """Return whether two edits change one matrix, or one place of the hidden states."""
    if mine.kind != other.kind:
        return False
    ours: Any = mine.site
    return bool(ours.overlaps(other.site)) if mine.kind == "weight" else ours == other.site


def composed_provenance(first: Part, second: Part) -> dict[str, Any]:
    """Return how a sum was made: the accounts of its parts, and no figures, which nobody has measured.

    Args:
        first: the first part.
        second: the second.
    """
    parts: list[Any] = []
    for recipe in (first, second):
        own = dict(recipe.provenance)
        parts += own.get("parts", [own]) if own else []
    return {"parts": parts} if parts else {}
