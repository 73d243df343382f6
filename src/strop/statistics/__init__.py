"""Figures, metrics and paired tests of them: numpy and scipy only, no model and no file."""

from strop.statistics.comparison import Comparison, compare_differences, compare_metric, spell_p_value
from strop.statistics.figures import Figures
from strop.statistics.merit import Merit, ObjectiveName, merit_of
from strop.statistics.metrics import METRICS

__all__ = [
    "METRICS",
    "Comparison",
    "Figures",
    "Merit",
    "ObjectiveName",
    "compare_differences",
    "compare_metric",
    "merit_of",
    "spell_p_value",
]
