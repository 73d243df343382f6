"""The table a finished run ends with."""

from collections.abc import Mapping
from typing import Any

from strop.report.figures import percent, signed_points
from strop.report.tables import Table
from strop.wording import in_words, p_in_words


def run_table(result: Mapping[str, Any]) -> Table:
    """Return the table of before and after.

    Args:
        result: the content of result.json.
    """
    rows = []
    metric = result.get("metric") if result.get("metric") != "accuracy" else None
    for split in ("select", "test"):
        base, edited = result["base"][split], result["edited"][split]
        name = "held out (test)" if split == "test" else "chosen by (select)"
        accuracies = (percent(base["accuracy"]), percent(edited["accuracy"])) if base["accuracy"] is not None else ()
        metrics = (f"{base[metric]:.4f}", f"{edited[metric]:.4f}") if metric is not None else ()
        rows.append((name, str(base["count"]), *metrics, *accuracies, f"{base['loss']:.3f}", f"{edited['loss']:.3f}"))
    accuracy_columns = ("accuracy before", "after") if result["base"]["test"]["accuracy"] is not None else ()
    metric_columns = (f"{metric} before", "after") if metric is not None else ()
    title = f"{result['base_model']['id']} on {result['task']['name']}"
    return Table(title, ("examples", "count", *metric_columns, *accuracy_columns, "loss before", "after"), tuple(rows))


def gain_sentence(
    comparison: Mapping[str, Any],
    *,
    in_accuracy: bool,
    metric: str | None = None,
    held_out: bool = False,
    over_start: bool = False,
) -> str:
    """Return the one sentence that says what was gained, and how sure that is.

    Args:
        comparison: as a result file holds it.
        in_accuracy: the gain is one of accuracy; else of loss.
        metric: what a classifier is judged by, where the gain is in that.
        held_out: it was measured on examples the choice had not seen.
        over_start: it is the gain over the recipe the run set out from, and not over the base.
    """
    low, high = comparison["ci95"]
    changed = f"{comparison['fixed']} fixed, {comparison['broken']} broken, {p_in_words(comparison['p_value'])}"
    if metric not in (None, "accuracy"):
        gain = f"{comparison['gain']:+.4f} of {metric} (95 % interval {low:+.4f} to {high:+.4f}"
    elif in_accuracy:
        gain = (
            f"{signed_points(comparison['gain'])} points (95 % interval {signed_points(low)} to {signed_points(high)}"
        )
    else:
        gain = f"{comparison['gain']:+.4f} nats per token (95 % interval {low:+.4f} to {high:+.4f}"
    name = f"{'Held-out gain' if held_out else 'Gain'}{' over the recipe it began with' if over_start else ''}"
    return f"{name}: {gain}; {changed})."


def intervention_lines(result: Mapping[str, Any]) -> list[str]:
    """Return what a run's recipe does, in lines.

    Args:
        result: the content of result.json.
    """
    if not result["interventions"]:
        return ["No edit helped on the select split; the recipe is empty."]
    return in_words(result["interventions"], head=result.get("head"))
