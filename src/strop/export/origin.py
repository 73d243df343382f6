"""What lies beside everything that is exported: a model card, and the recipe for those who ask how it was made."""

from pathlib import Path

from strop.files import write_json, write_text
from strop.recipe.card import Form
from strop.recipe.document import Recipe


def write_origin(folder: Path, recipe: Recipe, *, form: Form) -> None:
    """Write README.md and strop_recipe.json into a folder that is there.

    Args:
        folder: of what was exported.
        recipe: that it was made of.
        form: what it is.
    """
    write_text(folder / "README.md", recipe.card(form=form))
    write_json(
        folder / "strop_recipe.json",
        {"base": recipe.base.name, "interventions": recipe.describe(), "provenance": dict(recipe.provenance)},
    )
