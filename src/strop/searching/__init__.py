"""Methods that find edits of weights: they propose, and select chooses."""

from strop.searching.effect_plan import Counterfactual, EffectPlan
from strop.searching.effects import Effects, measure_effects
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
from strop.searching.sharpening import Preconditioner, Sharpener, SharpenPlan, sharpen
from strop.searching.work import work

__all__ = [
    "LASER_RANK_FRACTIONS",
    "Compose",
    "Counterfactual",
    "EffectPlan",
    "Effects",
    "Preconditioner",
    "PrunePlan",
    "Pruner",
    "ReductionChooser",
    "Scope",
    "SearchPlan",
    "SharpenPlan",
    "Sharpener",
    "Strategy",
    "measure_effects",
    "prune",
    "search",
    "sharpen",
    "sweep",
    "work",
]
