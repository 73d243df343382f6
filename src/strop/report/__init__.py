"""Tables and sentences for people, from typed values; no torch here."""

from strop.report.categories import category_table, spread_lines
from strop.report.changed import changed_lines
from strop.report.evaluation import evaluation_table, figures_table, paraphrase_lines
from strop.report.figures import percent, signed_points
from strop.report.page import WrittenReport, write_report
from strop.report.price import price_lines
from strop.report.rivals import rival_lines
from strop.report.run import budget_lines, gain_sentence, guard_lines, intervention_lines, run_table
from strop.report.side_by_side import side_by_side_table, side_lines, verdict_lines
from strop.report.tables import to_rich
from strop.report.task_check import bad_row_lines, example_lines, length_line, rows_in_lines, task_lines, task_table
from strop.report.whole_run import run_parts
from strop.tables import Table, to_markdown

__all__ = [
    "Table",
    "WrittenReport",
    "bad_row_lines",
    "budget_lines",
    "category_table",
    "changed_lines",
    "evaluation_table",
    "example_lines",
    "figures_table",
    "gain_sentence",
    "guard_lines",
    "intervention_lines",
    "length_line",
    "paraphrase_lines",
    "percent",
    "price_lines",
    "rival_lines",
    "rows_in_lines",
    "run_parts",
    "run_table",
    "side_by_side_table",
    "side_lines",
    "signed_points",
    "spread_lines",
    "task_lines",
    "task_table",
    "to_markdown",
    "to_rich",
    "verdict_lines",
    "write_report",
]
