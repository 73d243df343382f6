"""Put a recipe on the model it was made for, and take it off."""

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from transformers import PreTrainedModel

from strop.anatomy import Anatomy, Family
from strop.errors import BaseMismatchError, InterventionError, StropWarning, UsageError
from strop.interventions import Attachment, attach_interventions, attachments_of
from strop.recipe.compose import meet
from strop.recipe.document import Recipe


def attach(
    model: PreTrainedModel,
    recipe: Recipe,
    *,
    force: bool = False,
    family: Family | None = None,
    trainable: bool = False,
) -> Attachment:
    """Apply a recipe to a model, in place, until `detach`.

    Args:
        model: the base the recipe was made for, or PEFT's wrapper around it; changed.
        recipe: what to apply.
        force: apply it although the model is another one.
        family: the spelling of an architecture Strop does not know.
        trainable: let those of the recipe's interventions learn that do, and its head, under any trainer: their parameters
            become a part of the model and all else that is the model's own is frozen. `recipe.learned_by(attachment)` is
            the recipe with what they learned.

    Returns:
        The handle whose `detach()` takes it off; `strop.detach(model)` takes off the latest.

    Warns:
        StropWarning: the model is the base in a narrower dtype than the recipe was made for.

    Raises:
        UsageError: `model` is no model, or `recipe` no recipe.
        BaseMismatchError: the model is not the recipe's base, or a place the recipe edits is edited already by what is
            attached, and `force` is not given.
        RecipeError: factors the recipe carries are not those of the model's matrices, and `force` is not given.
        InterventionError: the recipe carries a classification head, and the model has none of that kind.
    """
    refuse_no_recipe(recipe)
    inner = inner_model(model)
    if not isinstance(inner, torch.nn.Module):
        raise UsageError(
            f"model is of type {type(inner).__name__}; load it first: model, tokenizer = strop.load({str(inner)[:60]!r})."
        )
    if hasattr(inner, "_orig_mod"):
        raise UsageError(
            "model is what torch.compile made of another; give the one inside, model._orig_mod: what is compiled is compiled "
            "anew with the recipe on it."
        )
    if recipe.head is not None:
        recipe.head.check(inner)
    if not force:
        note = recipe.check(inner, family=family)
        if note is not None:
            warnings.warn(note, StropWarning, stacklevel=2)
        _refuse_edited_places(inner, recipe)
    return attach_interventions(
        inner,
        recipe.interventions,
        anatomy=Anatomy.of(inner, family=family),
        tensors=recipe.tensors,
        head=recipe.head,
        trainable=trainable,
        outer=model if inner is not model else None,
    )


def refuse_no_recipe(recipe: object) -> None:
    """Raise UsageError if what is given as a recipe is none, such as its folder or a whole result.

    Args:
        recipe: given.
    """
    if isinstance(recipe, Recipe):
        return
    remedy = f"strop.Recipe.load({str(recipe)!r})" if isinstance(recipe, (str, Path)) else "strop.Recipe.load(folder)"
    remedy = "its .recipe" if isinstance(getattr(recipe, "recipe", None), Recipe) else remedy
    raise UsageError(f"recipe is of type {type(recipe).__name__}; give a strop.Recipe, which is {remedy}.")


def _refuse_edited_places(model: PreTrainedModel, recipe: Recipe) -> None:
    """Raise BaseMismatchError if a recipe edits what something attached edits: it was made for the base's."""
    for entry in recipe.interventions:
        for attached in attachments_of(model):
            if not any(meet(entry, other) for other in attached.interventions):
                continue
            what = "is not the matrix" if entry.kind == "weight" else "does not hold the hidden states"
            raise BaseMismatchError(
                f"{entry.site} {what} the recipe was made for: a recipe that is attached edits it already; detach "
                "that one, or pass force=True (--force) if you know that this one fits on top of it."
            )


def inner_model(model: PreTrainedModel) -> PreTrainedModel:
    """Return the transformers model inside PEFT's wrapper, or the model itself where there is none."""
    unwrap = getattr(model, "get_base_model", None)
    inner = unwrap() if callable(unwrap) else model
    return inner if isinstance(inner, PreTrainedModel) else model


def detach(model: PreTrainedModel) -> None:
    """Take the most recently attached recipe off a model, restoring every bit.

    Raises:
        InterventionError: nothing is attached.
    """
    attached = attachments_of(inner_model(model))
    if not attached:
        raise InterventionError("Nothing is attached to this model.")
    attached[-1].detach()


@contextlib.contextmanager
def applied(
    model: PreTrainedModel, recipe: Recipe, *, force: bool = False, family: Family | None = None
) -> Iterator[PreTrainedModel]:
    """Apply a recipe for the length of a `with` block; the model is restored bit for bit, exceptions included.

    Args:
        model: the base the recipe was made for; changed inside the block.
        recipe: what to apply.
        force: apply it although the model is another one.
        family: the spelling of an architecture Strop does not know.

    Raises:
        BaseMismatchError: the model is not the recipe's base, and `force` is not given.
    """
    attachment = attach(model, recipe, force=force, family=family)
    try:
        yield model
    finally:
        attachment.end()
