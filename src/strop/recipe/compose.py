"""Two recipes of one base in one, where that is exact: neither edits what the other does."""

from collections.abc import Mapping
from typing import Any, Protocol

from strop.checkpoints import BaseIdentity
from strop.errors import BaseMismatchError, RecipeError
from strop.interventions import Head, Intervention


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
    def provenance(self) -> Mapping[str, Any]:
        """How it was made."""
        ...

    @property
    def head(self) -> Head | None:
        """A classification head, where it carries one."""
        ...


def refuse_to_compose(first: Part, second: Part) -> None:
    """Make sure that two recipes, one after the other, are what both say.

    Args:
        first: is applied first.
        second: was found on the base, and not on what the first makes of it.

    Raises:
        BaseMismatchError: they were made for different bases.
        RecipeError: both edit one place, or both carry a classification head.
    """
    of_a, of_b = first.base, second.base
    if (of_a.architecture, of_a.fingerprint) != (of_b.architecture, of_b.fingerprint):
        different = f"{of_a.name} and {of_b.name}" if of_a.name != of_b.name else f"different weights of {of_a.name}"
        raise BaseMismatchError(f"Only recipes of one base can be added, and these were made for {different}.")
    if first.head is not None and second.head is not None:
        raise RecipeError(
            "Both recipes carry a classification head, and a model has one: train the second after the first."
        )
    for mine in first.interventions:
        clash = next((other for other in second.interventions if meet(mine, other)), None)
        if clash is not None:
            raise RecipeError(
                f"Both recipes edit {clash.site}, and the second does not know what the first leaves there: find it "
                "after the first (RunOptions(after=first), --after), or keep one of them."
            )


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
