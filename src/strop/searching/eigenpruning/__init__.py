"""Eigenpruning: which singular values to remove."""

from strop.searching.eigenpruning.plan import PrunePlan, Scope
from strop.searching.eigenpruning.prune import prune
from strop.searching.eigenpruning.pruner import Pruner

__all__ = ["PrunePlan", "Pruner", "Scope", "prune"]
