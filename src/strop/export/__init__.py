"""What other tools can load: a recipe baked into an ordinary checkpoint."""

from strop.export.bake import bake

__all__ = ["bake"]
