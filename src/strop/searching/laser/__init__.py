"""LASER: which matrix to reduce to which rank."""

from strop.searching.laser.chooser import ReductionChooser
from strop.searching.laser.helper import Helper
from strop.searching.laser.plan import LASER_RANK_FRACTIONS, Compose, SearchPlan, Strategy
from strop.searching.laser.search import search
from strop.searching.laser.sweep import sweep

__all__ = [
    "LASER_RANK_FRACTIONS",
    "Compose",
    "Helper",
    "ReductionChooser",
    "SearchPlan",
    "Strategy",
    "search",
    "sweep",
]
