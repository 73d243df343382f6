"""The document: read, write, check against a base model, apply, bake."""

from strop.recipe.apply import applied, attach, detach
from strop.recipe.bake import bake
from strop.recipe.document import FORMAT, MatrixIdentity, Recipe
from strop.recipe.folder import read_recipe, write_recipe

__all__ = ["FORMAT", "MatrixIdentity", "Recipe", "applied", "attach", "bake", "detach", "read_recipe", "write_recipe"]
