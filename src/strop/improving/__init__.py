"""One command that decides: all methods in one race, under one budget, and the best of them, or none."""

from strop.improving.improve import improve
from strop.improving.plan import FAMILIES, ImprovePlan, Preset

__all__ = ["FAMILIES", "ImprovePlan", "Preset", "improve"]
