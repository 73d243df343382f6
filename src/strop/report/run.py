"""The table a finished run ends with, and the sentences below it."""

from collections.abc import Callable

from strop.report.figures import percent, shots_phrase, signed_points
from strop.runs import GuardReading, PromptUsed, RunResult
from strop.statistics import Comparison, spell_p_value
from strop.tables import Table


def run_table(result: RunResult) -> Table:
    """Return the table of before and after.

    Args:
        result: of a finished run.
    """
    rows = []
    in_accuracy = result.base["test"].accuracy is not None
    by_category = result.base["test"].macro is not None
    metric = result.metric if result.metric != "accuracy" else None
    for split in ("select", "test"):
        base, edited = result.base[split], result.edited[split]
        name = "held out (test)" if split == "test" else "chosen by (select)"
        accuracies = (percent(base.accuracy), percent(edited.accuracy)) if base.accuracy is not None else ()
        judged = metric is not None and base.metric is not None and edited.metric is not None
        metrics = (f"{base.metric[1]:.4f}", f"{edited.metric[1]:.4f}") if judged else ()  # type: ignore[index]
        macros = (percent(base.macro), percent(edited.macro)) if by_category else ()
        rows.append((name, str(base.count), *metrics, *accuracies, *macros, f"{base.loss:.3f}", f"{edited.loss:.3f}"))
    accuracy_columns = ("accuracy before", "after") if in_accuracy else ()
    metric_columns = (f"{metric} before", "after") if metric is not None else ()
    macro_columns = ("macro before", "after") if by_category else ()
    columns = ("examples", "count", *metric_columns, *accuracy_columns, *macro_columns, "loss before", "after")
    title = f"{result.base_model.id} on {result.task.name}{shots_phrase(result.task.shots)}"
    return Table(title, columns, tuple(rows))


def gain_sentence(
    comparison: Comparison,
    *,
    in_accuracy: bool,
    metric: str | None = None,
    held_out: bool = False,
    over_start: bool = False,
    name: str | None = None,
) -> str:
    """Return the one sentence that says what was gained, and how sure that is.

    Args:
        comparison: of two models on the same examples.
        in_accuracy: the gain is one of accuracy; else of loss.
        metric: what a classifier is judged by, where the gain is in that.
        held_out: it was measured on examples the choice had not seen.
        over_start: it is the gain over the recipe the run set out from, and not over the base.
        name: what to call it in the place of a gain, such as `B over A`.
    """
    spell, unit = gain_spelling(in_accuracy=in_accuracy, metric=metric)
    gain = f"{spell(comparison.gain)} {unit} (95 % interval {interval_text(comparison, spell)}"
    changed = f"{comparison.fixed} fixed, {comparison.broken} broken, {spell_p_value(comparison.p_value)}"
    if name is not None:
        return f"{name}: {gain}; {changed})."
    name = f"{'Held-out gain' if held_out else 'Gain'}{' over the recipe it began with' if over_start else ''}"
    return f"{name}: {gain}; {changed}). {comparison.verdict}".rstrip()


def perplexity_lines(result: RunResult) -> list[str]:
    """Return a line with the perplexities before and after, of a run on text; none of any other.

    Args:
        result: of a finished run.
    """
    before, after = result.base["test"].perplexity, result.edited["test"].perplexity
    if before is None or after is None:
        return []
    return [f"Perplexity of what is held out: {before:.3f} -> {after:.3f} (× {after / before:.4f})."]


def gain_spelling(*, in_accuracy: bool, metric: str | None) -> tuple[Callable[[float], str], str]:
    """Return how a gain is spelt, and its unit.

    Args:
        in_accuracy: it is one of accuracy; else of loss.
        metric: what a classifier is judged by, where the gain is in that.
    """
    if metric not in (None, "accuracy"):
        return "{:+.4f}".format, f"of {metric}"
    return (signed_points, "points") if in_accuracy else ("{:+.4f}".format, "nats per token")


def interval_text(comparison: Comparison, spell: Callable[[float], str]) -> str:
    """Return the interval of a gain.

    Args:
        comparison: whose gain it is.
        spell: a bound of it.
    """
    low, high = comparison.ci95
    return f"{spell(low)} to {spell(high)}"


def intervention_lines(result: RunResult) -> list[str]:
    """Return what a run's recipe does, in lines.

    Args:
        result: of a finished run; one that an older version wrote has no words, and shows its entries instead.
    """
    if result.prompt is not None and not result.interventions:
        return [_prompt_line(result.prompt)]
    if not result.interventions and _is_cut_short(result):
        return ["The budget was spent before an edit was found that helps; the recipe is empty."]
    if not result.interventions:
        return ["No edit helped on the select split; the recipe is empty."]
    more = [_prompt_line(result.prompt)] if result.prompt is not None else []
    return [*result.edits, *more] or [
        f"layer {entry['layer']} {entry.get('matrix_type', entry.get('stream'))}: {entry['method']}"
        for entry in result.interventions
    ]


def _prompt_line(prompt: PromptUsed) -> str:
    return (
        f"{prompt.shots} solved example{'s'[: prompt.shots > 1]} before each prompt: {prompt.tokens_per_request:.0f} tokens a "
        f"request in the place of {prompt.base_tokens_per_request:.0f}; the model itself stays as it is."
    )


def budget_lines(result: RunResult) -> list[str]:
    """Return a line that says that the choice was cut short by its budget; none where it was not.

    Args:
        result: of a finished run.
    """
    if not _is_cut_short(result):
        return []
    return ["The budget ended the choice; repeat the command with --resume and a larger one to go on."]


def _is_cut_short(result: RunResult) -> bool:
    return result.budget is not None and result.budget.spent


def guard_lines(result: RunResult) -> list[str]:
    """Return what the guards say, a line each.

    Args:
        result: of a finished run.
    """
    return [_guard_line(reading) for reading in result.guards]


def _guard_line(reading: GuardReading) -> str:
    if reading.bound_unit == "nats":
        return f"Guard {reading.name}: {reading.edited:.2g} {reading.unit}, at most {reading.bound:g} allowed."
    unit = "%" if reading.bound_unit == "share" else reading.bound_unit
    figures = (
        f"{percent(reading.base)} -> {percent(reading.edited)}"
        if reading.bound_unit == "points"
        else f"{reading.base:.4g} -> {reading.edited:.4g}"
    )
    harm = (
        f"harm {100 * reading.harm:+.2f} {unit}, at most {100 * reading.bound:g}{' %' if unit == '%' else ''} allowed"
    )
    return f"Guard {reading.name}: {reading.unit} {figures} ({harm})."
