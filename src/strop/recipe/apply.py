"""Put a recipe on the model it was made for, and take it off."""

import contextlib
from collections.abc import Iterator

from transformers import PreTrainedModel

from strop.anatomy import Anatomy, Family
from strop.errors import InterventionError
from strop.interventions import Attachment, attach_interventions, attachments_of
from strop.recipe.document import Recipe


def attach(model: PreTrainedModel, recipe: Recipe, *, force: bool = False, family: Family | None = None) -> Attachment:
    """Apply a recipe to a model, in place, until `detach`.

    Args:
        model: the base the recipe was made for; changed.
        recipe: what to apply.
        force: apply it although the model is another one.
        family: the spelling of an architecture Strop does not know.

    Returns:
        The handle whose `detach()` takes it off; `strop.detach(model)` takes off the latest.

    Raises:
        BaseMismatchError: the model is not the recipe's base, and `force` is not given.
    """
    if not force:
        recipe.check(model, family=family)
    anatomy = Anatomy.of(model, family=family)
    return attach_interventions(model, recipe.interventions, anatomy=anatomy, tensors=recipe.tensors)


def detach(model: PreTrainedModel) -> None:
    """Take the most recently attached recipe off a model, restoring every bit.

    Raises:
        InterventionError: nothing is attached.
    """
    attached = attachments_of(model)
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
        attachment.detach()
