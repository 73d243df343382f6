"""Several runs side by side: their figures, what each gained, and how they do against each other on the same examples."""

from strop.report.figures import percent
from strop.report.page import charts
from strop.report.page.decision import headline_of, verdict_of
from strop.report.page.document import Part
from strop.report.page.run_files import RunFiles
from strop.report.run import gain_spelling
from strop.runs import RunResult, pair_answers, same_examples
from strop.statistics import spell_p_value
from strop.tables import Table


def comparison_of(runs: list[RunFiles], names: list[str]) -> tuple[Part, ...]:
    """Return what several runs show side by side.

    Args:
        runs: two or more.
        names: of each, which no other has.
    """
    finished = [(name, run, run.result) for name, run in zip(names, runs, strict=True) if run.result is not None]
    parts: list[Part] = []
    kinds = {_measured(result) for _, _, result in finished}
    if len(kinds) == 1 and finished:
        unit = kinds.pop()
        rows = [(name, result.comparison["test"].gain, result.comparison["test"].ci95) for name, _, result in finished]
        scale = 100 if unit == "points" else 1
        parts.append(charts.gains(rows, title="Held-out gain over the base", unit=unit, scale=scale))
    parts.append(_table(runs, names))
    if len({(run.base_model.fingerprint, run.task.name) for _, _, run in finished}) > 1:
        parts.append("The runs are not of one base and one task: their figures stand side by side and do not compare.")
        return tuple(parts)
    return (*parts, *_paired([(name, run) for name, run, _ in finished]))


def _measured(result: RunResult) -> str:
    return gain_spelling(in_accuracy=result.base["test"].accuracy is not None, metric=result.metric)[1]


def _table(runs: list[RunFiles], names: list[str]) -> Table:
    columns = ("run", "model", "task", "by", "before", "after", "gain", "95 % interval", "drift", "seconds", "decision")
    rows = []
    for name, run in zip(names, runs, strict=True):
        result, verdict = run.result, verdict_of(run)[0]
        if result is None:
            rows.append((name, *("–",) * (len(columns) - 2), verdict))
            continue
        figures, price = headline_of(result), result.price
        drift = price.drift.spelt_kl if price is not None and price.drift is not None else "–"
        rows.append(
            (name, result.base_model.id, result.task.name, result.command, figures.before, figures.after, figures.gain,
             figures.interval, drift, f"{result.cost.wall_seconds:,.0f}", verdict)
        )  # fmt: skip
    return Table("The runs", columns, tuple(rows))


def _paired(runs: list[tuple[str, RunFiles]]) -> list[Part]:
    """Return how each run does against the best one, example by example, of those that were measured on the same examples."""
    runs = [(name, run) for name, run in runs if run.answers and run.answers[0].right_after is not None]
    if len(runs) < 2:
        return []
    same = [(name, run) for name, run in runs if same_examples(run.answers, runs[0][1].answers)]
    if len(same) < 2:
        return ["The runs were not measured on the same examples, so they are not compared one by one."]
    right = {name: sum(bool(answer.right_after) for answer in run.answers) / len(run.answers) for name, run in same}
    best = max(right, key=right.__getitem__)
    of_best = next(run.answers for name, run in same if name == best)
    rows = []
    for name, run in same:
        change = pair_answers(of_best, run.answers) if name != best else None
        if change is None:
            continue
        found = change.comparison
        low, high = found.ci95
        rows.append(
            (name, percent(right[name]), f"{100 * found.gain:+.1f}", f"{100 * low:+.1f} to {100 * high:+.1f}",
             spell_p_value(found.p_value))
        )  # fmt: skip
    title = f"Against {best} ({percent(right[best])}), on the same {len(of_best):,} examples"
    return [Table(title, ("run", "right", "points", "95 % interval", "by chance"), tuple(rows))]
