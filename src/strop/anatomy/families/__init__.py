"""How architectures spell their matrices, and what structure cannot tell without running a model."""

from strop.anatomy.families.spelling import EXPERT, Family, Matrices, Packing, Spelling

__all__ = ["EXPERT", "Family", "Matrices", "Packing", "Spelling"]
