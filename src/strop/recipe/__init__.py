"""The document: read, write, check against a base model, apply."""

from strop.recipe.apply import applied, attach, detach
from strop.recipe.document import Recipe
from strop.recipe.files import FORMAT
from strop.recipe.identity import MatrixIdentity

__all__ = ["FORMAT", "MatrixIdentity", "Recipe", "applied", "attach", "detach"]
