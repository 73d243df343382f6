"""Figures, metrics, paired tests and intervals of them: numpy and scipy only, no model."""

from strop.statistics.changed import ChangedAnswer, ChangedAnswers
from strop.statistics.comparison import Comparison, compare_differences, compare_metric, spell_p_value
from strop.statistics.drift import Drift
from strop.statistics.figures import Figures
from strop.statistics.intervals import interval_from_json, mean_interval
from strop.statistics.merit import Merit, ObjectiveName, merit_of
from strop.statistics.metrics import METRICS
from strop.statistics.rivals import Answer, MostSaid, Rival, Rivals
from strop.statistics.ruling_out import ruled_out
from strop.statistics.spread import CategoryGain, Spread, spread_of

__all__ = [
    "METRICS",
    "Answer",
    "CategoryGain",
    "ChangedAnswer",
    "ChangedAnswers",
    "Comparison",
    "Drift",
    "Figures",
    "Merit",
    "MostSaid",
    "ObjectiveName",
    "Rival",
    "Rivals",
    "Spread",
    "compare_differences",
    "compare_metric",
    "interval_from_json",
    "mean_interval",
    "merit_of",
    "ruled_out",
    "spell_p_value",
    "spread_of",
]
