"""Propose weight interventions and prove them."""

from strop.search.gradient import measure_effects
from strop.search.plan import LASER_RANK_FRACTIONS, Compose, SearchPlan, Strategy
from strop.search.search import SearchResult, search
from strop.search.sweep import sweep

__all__ = [
    "LASER_RANK_FRACTIONS",
    "Compose",
    "SearchPlan",
    "SearchResult",
    "Strategy",
    "measure_effects",
    "search",
    "sweep",
]
