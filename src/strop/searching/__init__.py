"""Methods that find edits of weights: they propose, and select chooses."""

from strop.searching.effects import Counterfactual, EffectPlan, Effects, measure_effects
from strop.searching.eigenpruning import PrunePlan, Pruner, Scope, prune
from strop.searching.laser import (
    LASER_RANK_FRACTIONS,
    Compose,
    ReductionChooser,
    SearchPlan,
    Strategy,
    search,
    sweep,
)

__all__ = [
    "LASER_RANK_FRACTIONS",
    "Compose",
    "Counterfactual",
    "EffectPlan",
    "Effects",
    "PrunePlan",
    "Pruner",
    "ReductionChooser",
    "Scope",
    "SearchPlan",
    "Strategy",
    "measure_effects",
    "prune",
    "search",
    "sweep",
]
