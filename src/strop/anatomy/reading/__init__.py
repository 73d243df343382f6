"""Reading how a model nobody has listed is made: from its modules, and from what running it shows."""

from strop.anatomy.reading.read import Reading, read_model

__all__ = ["Reading", "read_model"]
