"""Propose weight interventions and prove them."""

from strop.searching.effects import Counterfactual, EffectPlan, Effects, measure_effects
from strop.searching.plan import LASER_RANK_FRACTIONS, Compose, SearchPlan, Strategy
from strop.searching.prune import prune
from strop.searching.prune_plan import PrunePlan, Scope
from strop.searching.search import search
from strop.searching.sweep import sweep

__all__ = [
    "LASER_RANK_FRACTIONS",
    "Compose",
    "Counterfactual",
    "EffectPlan",
    "Effects",
    "PrunePlan",
    "Scope",
    "SearchPlan",
    "Strategy",
    "measure_effects",
    "prune",
    "search",
    "sweep",
]
