"""The document: read, write, check against a base model, apply."""

from strop.recipe.apply import applied, attach, detach
from strop.recipe.document import MatrixIdentity, Recipe
from strop.recipe.files import FORMAT

__all__ = ["FORMAT", "MatrixIdentity", "Recipe", "applied", "attach", "detach"]
