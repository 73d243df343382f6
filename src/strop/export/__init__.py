"""What other tools can load: a recipe baked into an ordinary checkpoint, or written as an adapter of PEFT's."""

from strop.export.bake import bake
from strop.export.biases import refuse_unbakeable
from strop.export.peft_adapter import export_peft, refuse_unadaptable

__all__ = ["bake", "export_peft", "refuse_unadaptable", "refuse_unbakeable"]
