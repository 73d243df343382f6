"""What other tools can load: a recipe baked into an ordinary checkpoint."""

from strop.export.bake import bake
from strop.export.biases import refuse_unbakeable

__all__ = ["bake", "refuse_unbakeable"]
