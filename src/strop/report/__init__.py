"""Tables and sentences for people, from typed values; no torch here."""

from strop.report.evaluation import evaluation_table, paraphrase_lines
from strop.report.figures import percent, signed_points
from strop.report.run import budget_lines, gain_sentence, guard_lines, intervention_lines, run_table
from strop.report.tables import Table, to_markdown, to_rich

__all__ = [
    "Table",
    "budget_lines",
    "evaluation_table",
    "gain_sentence",
    "guard_lines",
    "intervention_lines",
    "paraphrase_lines",
    "percent",
    "run_table",
    "signed_points",
    "to_markdown",
    "to_rich",
]
