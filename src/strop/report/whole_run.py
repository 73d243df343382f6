"""A finished run for people, whole: its tables and the lines between them, wherever they are drawn."""

from strop.report.categories import category_table, spread_lines
from strop.report.price import price_lines
from strop.report.rivals import rival_lines
from strop.report.run import budget_lines, gain_sentence, guard_lines, intervention_lines, perplexity_lines, run_table
from strop.runs import RunResult
from strop.tables import Table


def run_parts(result: RunResult) -> list[Table | str]:
    """Return what a finished run ends with, in its order: tables, and lines.

    Args:
        result: of the run.
    """
    in_accuracy = result.base["test"].accuracy is not None
    parts: list[Table | str] = [run_table(result), *(f"  {line}" for line in intervention_lines(result))]
    for name in ("test", "test_over_start"):
        if name in result.comparison:
            parts.append(
                gain_sentence(
                    result.comparison[name],
                    in_accuracy=in_accuracy,
                    metric=result.metric,
                    held_out=True,
                    over_start=name == "test_over_start",
                )
            )
    parts += perplexity_lines(result)
    if result.categories is not None:
        parts += [category_table(result.categories), *spread_lines(result.categories)]
    parts += [*rival_lines(result.rivals), *price_lines(result.price), *guard_lines(result), *budget_lines(result)]
    cost = result.cost
    memory = f"at most {cost.peak_rss_bytes / 1e6:,.0f} MB of memory"
    if cost.peak_gpu_bytes is not None:
        memory += f" and {cost.peak_gpu_bytes / 1e6:,.0f} MB on the GPU, held for {cost.gpu_seconds:.0f} s"
    return [*parts, f"{cost.evaluations} evaluations in {cost.wall_seconds:.0f} s, {memory}"]
