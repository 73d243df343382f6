"""Make a recipe permanent: an ordinary checkpoint any other tool can load."""

from pathlib import Path
from typing import TYPE_CHECKING

from transformers import PreTrainedModel

from strop.anatomy import Anatomy, Family
from strop.checkpoints import open_model
from strop.checkpoints.quiet import quiet_transformers
from strop.errors import InterventionError, reason_in
from strop.export.biases import room_for_biases, under_config
from strop.files import making_folder, write_json, write_text
from strop.interventions import attachments_of
from strop.recipe.apply import applied
from strop.recipe.document import Recipe

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def bake(
    model: PreTrainedModel | str | Path,
    recipe: Recipe,
    folder: str | Path,
    *,
    tokenizer: "PreTrainedTokenizerBase | None" = None,
    force: bool = False,
    family: Family | None = None,
) -> Path:
    """Write a checkpoint with a recipe's edits in its weights; the model in memory is left as it was.

    The folder appears whole or not at all. It holds the model as `save_pretrained` writes it (safetensors), the
    tokenizer where one is given, a model card, and the recipe as `strop_recipe.json` for those who ask how it was made.
    Where a pruning leaves a mean bias in a module that has none, the checkpoint's config asks for biases, and those the
    recipe does not speak of are zeros.

    Args:
        model: the base the recipe was made for, with nothing attached; or its name or folder, and its tokenizer comes with it.
        recipe: what to bake in.
        folder: must not hold anything yet.
        tokenizer: saved beside the model.
        force: bake although the model is another one.
        family: the spelling of an architecture Strop does not know.

    Raises:
        UsageError: the folder is there already and is not empty.
        BaseMismatchError: the model is not the recipe's base, and `force` is not given.
        InterventionError: something is attached to the model already, a checkpoint cannot hold one of the recipe's
            biases, or transformers refuses to save the model.
    """
    if isinstance(model, (str, Path)):
        model, own = open_model(model, labels=recipe.head.labels or 1 if recipe.head is not None else None)
        tokenizer = tokenizer if tokenizer is not None else own
    if attachments_of(model):
        raise InterventionError("Something is attached to this model already; detach it before baking a recipe.")
    if not force:
        recipe.check(model, family=family)
    config, zeros = room_for_biases(model, Anatomy.of(model, family=family), recipe)
    path = Path(folder)
    with (
        making_folder(path) as temporary,
        applied(model, recipe, force=True, family=family),
        under_config(model, config),
        quiet_transformers(),
    ):
        try:
            model.save_pretrained(temporary, state_dict={**zeros, **model.state_dict()})
        except ValueError as error:  # what transformers finds wrong with a configuration
            raise InterventionError(f"transformers refuses to save this model: {reason_in(error)}.") from error
        if tokenizer is not None:
            tokenizer.save_pretrained(temporary)
        write_text(temporary / "README.md", recipe.card(baked=True))
        write_json(
            temporary / "strop_recipe.json",
            {"base": recipe.base.name, "interventions": recipe.describe(), "provenance": dict(recipe.provenance)},
        )
    return path
