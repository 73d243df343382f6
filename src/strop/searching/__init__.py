"""Propose weight interventions and prove them."""

from strop.searching.effects import Counterfactual, EffectPlan, Effects, measure_effects
from strop.searching.plan import LASER_RANK_FRACTIONS, Compose, SearchPlan, Strategy
from strop.searching.search import SearchResult, search
from strop.searching.sweep import sweep

__all__ = [
    "LASER_RANK_FRACTIONS",
    "Compose",
    "Counterfactual",
    "EffectPlan",
    "Effects",
    "SearchPlan",
    "SearchResult",
    "Strategy",
    "measure_effects",
    "search",
    "sweep",
]
