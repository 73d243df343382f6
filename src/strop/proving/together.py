"""Recipes on a model that is not theirs to choose for: checked before anything is scored, applied together, priced."""

import contextlib
import dataclasses
from collections.abc import Sequence

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from strop.anatomy import Anatomy, Family
from strop.errors import UsageError
from strop.progress import SILENT, Progress
from strop.proving.drift import DriftText
from strop.proving.price import price_of
from strop.proving.rivals import free_rivals
from strop.recipe import Recipe, applied
from strop.runs import Change, Price
from strop.scoring import DriftScorer, Evaluation, compare, spread
from strop.tasks import Example, Task


@dataclasses.dataclass(frozen=True, eq=False)
class Together:
    """Recipes that are put on a model one after the other, for a `with` block.

    Args:
        recipes: in the order they are applied.
        force: apply them although they were made for another base.
    """

    recipes: tuple[Recipe, ...]
    force: bool = False

    def __bool__(self) -> bool:
        return any(recipe.interventions or recipe.head is not None for recipe in self.recipes)

    @property
    def lowest(self) -> int:
        """The lowest layer any of them edits; 0 where none edits anything."""
        return min((edit.site.layer for recipe in self.recipes for edit in recipe.interventions), default=0)

    def refuse_task(self, task: Task) -> None:
        """Make sure that a classifier's recipes meet a task with their labels; it needs no model.

        Raises:
            UsageError: the task has no labels, or others.
        """
        for recipe in self.recipes:
            if recipe.head is None:
                continue
            what = f"A recipe for {recipe.base.id} carries a classification head of {_labels(recipe.head.labels)}"
            if task.labels is None:
                raise UsageError(f"{what}, and task {task.name} has none: give a task with score: label.")
            if recipe.head.labels != task.labels.names:
                raise UsageError(
                    f"{what}, and task {task.name} has {_labels(task.labels.names)}: give the task it was trained on."
                )

    def check(self, model: PreTrainedModel, *, family: Family | None = None) -> None:
        """Make sure that each fits a model, before time is spent on it.

        Args:
            model: with nothing attached.
            family: the spelling of an architecture Strop does not know.

        Raises:
            BaseMismatchError: one was made for another base, and they are not to be forced.
            InterventionError: one carries a head, and the model has none of that kind.
        """
        for recipe in self.recipes:
            if recipe.head is not None:
                recipe.head.check(model)
            if not self.force:
                recipe.check(model, family=family)

    def applied(self, model: PreTrainedModel, *, family: Family | None = None) -> contextlib.ExitStack:
        """Put them on a model for a `with` block, after which it is what it was.

        Args:
            model: changed inside the block.
            family: the spelling of an architecture Strop does not know.

        Raises:
            BaseMismatchError: one was made for another base, or edits what another has edited.
        """
        with contextlib.ExitStack() as stack:
            for recipe in self.recipes:
                stack.enter_context(applied(model, recipe, force=self.force, family=family))
            return stack.pop_all()

    def price(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        text: DriftText,
        *,
        anatomy: Anatomy,
        fingerprint: str | None = None,
        prepared: DriftScorer | None = None,
        progress: Progress = SILENT,
    ) -> Price:
        """Return what they cost together, on text that has nothing to do with the task.

        Args:
            model: as it is before any edit.
            tokenizer: the model's.
            text: what drift is measured on.
            anatomy: the model's.
            fingerprint: of the model's weights, where it is at hand.
            prepared: what has read the same texts of the base already, below these edits.
            progress: told how far it is.
        """
        return price_of(
            model,
            tokenizer,
            lambda: self.applied(model, family=anatomy.family),
            anatomy=anatomy,
            lowest=self.lowest,
            text=text,
            fingerprint=fingerprint,
            prepared=prepared,
            progress=progress,
        ).price


def change_of(
    task: Task,
    examples: Sequence[Example],
    base: Evaluation,
    edited: Evaluation,
    price: Price | None = None,
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> Change:
    """Return what a model is against its base: the paired gain, its spread, and the rivals that cost no pass.

    Args:
        task: the examples' task.
        examples: that were scored.
        base: of the model as it was, on these examples.
        edited: of the model with recipes applied.
        price: of these, where it was measured.
        tokenizer: the model's; see `free_rivals`.
    """
    rivals = free_rivals(task, examples, base, edited, tokenizer=tokenizer)
    return Change(compare(base, edited), spread(base, edited), price, rivals or None)


def _labels(names: tuple[str, ...]) -> str:
    return f"{len(names)} labels ({', '.join(names)})" if names else "one number"
