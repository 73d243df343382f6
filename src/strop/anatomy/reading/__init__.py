"""Reading how a model nobody has listed is made: from its modules, and from what running it shows."""

from strop.anatomy.reading.given import check_given
from strop.anatomy.reading.read import Reading, read_model

__all__ = ["Reading", "check_given", "read_model"]
