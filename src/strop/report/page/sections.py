"""The sections of a run's chapter, each from what its folder holds; one that has nothing to show is left out."""

import shlex
from collections.abc import Iterable, Mapping
from typing import Any

from strop.findings import (
    ParaphraseTable,
    changed_examples,
    choice_curve,
    gain_by_category,
    gain_by_frequency,
    loss_by_layer_and_rank,
    paraphrase_robustness,
    spectrum_rows,
)
from strop.report.categories import category_table, spread_lines
from strop.report.figures import percent
from strop.report.page import charts
from strop.report.page.document import Code, Examples, Part, Quotes, Section
from strop.report.page.race import race_parts
from strop.report.page.run_files import RunFiles
from strop.report.price import price_lines
from strop.report.rivals import rival_lines
from strop.report.run import budget_lines, gain_sentence, gain_spelling, intervention_lines, run_table
from strop.report.sweep import sweep_table
from strop.runs import RunResult
from strop.statistics import Comparison
from strop.tables import Table

SHOWN = 12
"""Examples of each kind that are shown; all of them lie beside the report."""
MOST_ROWS = 40
"""Of a table."""


def sections_of(run: RunFiles, *, examples_file: str) -> tuple[Section, ...]:
    """Return a run's sections in their order.

    Args:
        run: finished or not.
        examples_file: where all changed examples are.
    """
    every = (
        ("Leaderboard", _leaderboard(run)),
        ("Gain", _gain(run)),
        ("Rivals", _rivals(run)),
        ("Price and guards", _price(run)),
        ("Categories", _categories(run)),
        ("Frequency", _frequency(run)),
        ("In other words", _paraphrases(run)),
        ("Examples", _examples(run, examples_file)),
        ("Edited matrices", _matrices(run)),
        ("What the removed components say", _removed(run)),
        ("Sweep", _sweep(run)),
        ("The race", race_parts(run.trials)),
        ("Learning curve" if _is_training(run) else "How the choice went", _curve(run)),
        ("Cost", _cost(run)),
        ("To repeat it", _repeat(run)),
        ("What is missing", run.missing),
    )
    return tuple(Section(title, tuple(parts)) for title, parts in every if parts)


def _is_training(run: RunFiles) -> bool:
    return run.config.get("command") == "train"


def _leaderboard(run: RunFiles) -> list[Part]:
    board = run.leaderboard
    if board is None:
        return []
    table = board.table(title="All that was in the running, on select")
    compared = [own for own in board.standings if own.comparison is not None and own.select is not None][:MOST_ROWS]
    in_points = any(own.select is not None and own.select.accuracy is not None for own in compared)
    figure = charts.gains(
        [(own.name, own.comparison.gain, own.comparison.ci95) for own in compared if own.comparison is not None],
        title="Gain on select",
        unit="points" if in_points else "nats per token",
        scale=100 if in_points else 1,
    )
    why = [f"{own.name}: {own.why}" for own in board.standings if own.why][:MOST_ROWS]
    return [*([figure] if compared else []), _most(table), *why]


def _most(table: Table, most: int = MOST_ROWS) -> Table:
    """Return a table with its first rows, where it has too many."""
    if len(table.rows) <= most:
        return table
    return Table(f"{table.title} (the first {most} of {len(table.rows)})", table.columns, table.rows[:most])


def _gain(run: RunFiles) -> list[Part]:
    result = run.result
    if result is None:
        return []
    in_accuracy = result.base["test"].accuracy is not None
    scale, unit = _scale(result)
    compared: dict[str, Comparison] = {"over the base": result.comparison["test"]}
    if "test_over_start" in result.comparison:
        compared["over its start"] = result.comparison["test_over_start"]
    rows = [(name, own.gain, own.ci95) for name, own in compared.items()]
    spread = result.categories
    if spread is not None and (spread.measure == "accuracy") == (in_accuracy and result.metric in (None, "accuracy")):
        rows.append(("average over categories", spread.macro_gain, spread.macro_ci95))
        if len(spread.categories) > 1:
            rows.append(("on other categories", spread.gain, spread.ci95_categories))
    sentences = [
        gain_sentence(
            own, in_accuracy=in_accuracy, metric=result.metric, held_out=True, over_start=name == "over its start"
        )
        for name, own in compared.items()
    ]
    figure = charts.gains(rows, title="Held-out gain, with its 95 % interval", unit=unit, scale=scale)
    return [figure, run_table(result), *sentences]


def _scale(result: RunResult) -> tuple[float, str]:
    _, unit = gain_spelling(in_accuracy=result.base["test"].accuracy is not None, metric=result.metric)
    return (100 if unit == "points" else 1), unit


def _rivals(run: RunFiles) -> list[Part]:
    result = run.result
    if result is None or result.rivals is None:
        return []
    scale, unit = _scale(result)
    rows = [("the model as it was", result.comparison["test"].gain, result.comparison["test"].ci95)]
    for name, rival in result.rivals.measured.items():
        count = name.removeprefix("shots_")
        shots = f"{count} example{'s' if count != '1' else ''} in the prompt"
        called = "one constant answer" if name == "constant" else shots
        rows.append((called, rival.comparison.gain, rival.comparison.ci95))
    figure = charts.gains(rows, title="This run over what a user would do instead", unit=unit, scale=scale)
    return [*([figure] if len(rows) > 1 else []), *rival_lines(result.rivals)]


def _price(run: RunFiles) -> list[Part]:
    result = run.result
    if result is None:
        return []
    parts: list[Part] = [*price_lines(result.price, continuations=False)]
    if result.guards:
        rows = tuple(
            (own.name, f"{own.base:.4g}", f"{own.edited:.4g}", own.unit, f"{own.harm:.3g}", f"{own.bound:g} {own.bound_unit}",
             "holds" if own.holds else "broken")
            for own in result.guards
        )  # fmt: skip
        columns = ("guard", "base", "edited", "unit", "harm", "at most", "verdict")
        parts.append(Table("What was watched", columns, rows))
    price = result.price
    if price is not None and price.continuations and price.drift is not None and not price.drift.identical:
        parts.append("A few texts that have nothing to do with the task go on like this:")
        parts.append(Quotes(tuple((each.prompt, each.base, each.edited) for each in price.continuations)))
    return parts


def _categories(run: RunFiles) -> list[Part]:
    spread = run.result.categories if run.result is not None else None
    spread = spread or gain_by_category(run.answers)
    if spread is None:
        return []
    return [charts.categories(spread), category_table(spread), *spread_lines(spread)]


def _frequency(run: RunFiles) -> list[Part]:
    found = gain_by_frequency(run.answers)
    if found is None or len(found.bins) < 2:
        return []
    points = found.measure == "accuracy"
    scale, digits = (100, 1) if points else (1, 3)
    rows = tuple(
        (
            charts.range_of(own.least, own.most), f"{own.count:,}", f"{scale * own.before:.{digits}f}",
            f"{scale * own.after:.{digits}f}", f"{scale * own.comparison.gain:+.{digits}f}",
            f"{scale * own.comparison.ci95[0]:+.{digits}f} to {scale * own.comparison.ci95[1]:+.{digits}f}",
            f"{own.comparison.fixed}, {own.comparison.broken}",
        )
        for own in found.bins
    )  # fmt: skip
    unit = "%" if points else "nats"
    columns = ("frequency", "facts", f"before, {unit}", f"after, {unit}", "gain", "95 % interval", "fixed, broken")
    left = [f"{found.unknown:,} examples say nothing of their frequency and are left out."] if found.unknown else []
    return [charts.frequency(found), Table("From rare to frequent facts", columns, rows), *left]


def _paraphrases(run: RunFiles) -> list[Part]:
    found = paraphrase_robustness(run.paraphrases)
    if found is None:
        return []
    low, high = found.comparison.ci95
    rows = (
        ("paraphrases answered right", *_both(found.right_before, found.right_after)),
        ("facts right in every wording", *_both(found.whole_before, found.whole_after)),
        ("the same, of facts right in their own prompt", *_both(found.robust_before, found.robust_after)),
    )
    table = Table(f"{found.facts:,} facts in {found.wordings:,} other wordings", ("", "before", "after"), rows)
    return [table, _wording(found, low, high)]


def _both(before: float | None, after: float | None) -> tuple[str, str]:
    return percent(before), percent(after)


def _wording(found: ParaphraseTable, low: float, high: float) -> str:
    return (
        f"Right in every wording: {100 * found.comparison.gain:+.1f} points (95 % interval {100 * low:+.1f} to "
        f"{100 * high:+.1f}; {found.comparison.fixed} facts fixed, {found.comparison.broken} broken)."
    )


def _examples(run: RunFiles, examples_file: str) -> list[Part]:
    found = changed_examples(run.answers, most=SHOWN)
    if found is None:
        return []
    parts: list[Part] = [
        Examples("fixed", found.fixed_count, found.fixed),
        Examples("broken", found.broken_count, found.broken),
    ]
    if run.answers[0].score in ("exact", "first_token"):
        parts.insert(0, "Answers are compared token by token: of what the models say, the first token is shown.")
    if found.fixed_count + found.broken_count:
        parts.append(f"Those come first whose loss moved most; all of them are in {examples_file}.")
    return parts


def _matrices(run: RunFiles) -> list[Part]:
    result = run.result
    if result is None:
        return []
    rows = spectrum_rows(run.spectra)
    lines: list[Part] = [*intervention_lines(result)]
    if not rows:
        return lines
    cells = tuple(
        (
            own.name, own.method.replace("_", " "), f"{own.count:,}", f"{own.removed:,}", f"{100 * own.mean_change:.2f} %",
            percent(own.energy_kept), _number(own.effective_rank_before), _number(own.effective_rank_after),
        )
        for own in rows
    )  # fmt: skip
    columns = ("matrix", "edit", "values", "removed", "mean change", "energy", "effective rank", "after")
    table = Table("What was changed of each matrix", columns, cells)
    figure = charts.spectra(run.spectra)
    return [
        *([figure] if figure is not None else []),
        _most(table, SHOWN),
        *lines,
    ]


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.0f}"


def _removed(run: RunFiles) -> list[Part]:
    found = run.removed
    if found is None:
        return []
    chosen = [0, len(found.shares) // 2, len(found.shares) - 1]
    columns = ("prompt", "right", *(f"{100 * found.shares[index].share:.0f} % kept" for index in chosen))
    rows = tuple((own.prompt, own.wanted, *(own.said[index] for index in chosen)) for own in found.answers)
    return [
        charts.removed(found),
        f"Of {found.matrix} the edit keeps the {found.rank:,} largest of {found.full_rank:,} components. Here only the smallest "
        f"are kept, on {found.examples:,} examples{' that the edit fixed' if found.fixed else ', for the edit fixed none'}.",
        Table("What is answered with only the smallest components", columns, rows[:SHOWN]),
    ]


def _sweep(run: RunFiles) -> list[Part]:
    found = loss_by_layer_and_rank(run.trials)
    if found is None:
        return []
    figure = charts.sweep(found, finished=run.result is not None)
    return [figure, figure.description, sweep_table(found)]


def _curve(run: RunFiles) -> list[Part]:
    found = choice_curve(run.trials)
    if found is None or run.config.get("command") == "improve":  # whose trials are of many choices
        return []
    points = [own for own in found.points if own.best] if len(found.points) > MOST_ROWS else found.points
    rows = tuple(
        (own.label, f"{own.merit:.4f}" if own.merit is not None else "–", f"{own.loss:.4f}", f"{own.seconds:.0f}")
        for own in points
    )
    figure = charts.curve(found)
    title = "Each trial" if len(points) == len(found.points) else "Each that was the best so far"
    return [figure, figure.description, _most(Table(title, ("tried", "figure", "loss", "seconds"), rows))]


def _cost(run: RunFiles) -> list[Part]:
    result = run.result
    if result is None:
        return []
    cost = result.cost
    rows = (
        ("seconds", f"{cost.wall_seconds:,.0f}"),
        ("evaluations", f"{cost.evaluations:,}"),
        ("tokens read", f"{cost.tokens:,}"),
        ("memory, at most", f"{cost.peak_rss_bytes / 1e6:,.0f} MB"),
        *((("GPU seconds", f"{cost.gpu_seconds:,.0f}"),) if cost.gpu_seconds is not None else ()),
        *(
            (("GPU memory, at most", f"{cost.peak_gpu_bytes / 1e6:,.0f} MB"),)
            if cost.peak_gpu_bytes is not None
            else ()
        ),
    )
    return [Table("What the run took", ("", "figure"), rows), *budget_lines(result)]


def _repeat(run: RunFiles) -> list[Part]:
    parts: list[Part] = []
    command = run.environment.get("command")
    if isinstance(command, list) and command:
        parts.append(Code(shlex.join(map(str, command))))
    identity = {
        "base model": _base(run),
        "weights' fingerprint": _inside(run.config, "base_model", "fingerprint"),
        "task": _inside(run.config, "task", "name") or (run.result.task.name if run.result is not None else ""),
        "task's fingerprint": _inside(run.config, "task", "fingerprint"),
        "seed": str(run.result.seed) if run.result is not None else str(_inside(run.config, "plan", "seed")),
        "run": str(run.config.get("run", "")),
        "platform": str(run.environment.get("platform", "")),
        "device": str(run.environment.get("cuda") or "cpu"),
        "threads": str(run.environment.get("torch_threads", "")),
    }
    parts.append(_pairs("What it was", identity))
    versions = run.result.versions if run.result is not None else run.environment.get("versions", {})
    parts += [_pairs("Versions", versions), _pairs("Settings", _flat(run.config.get("plan", {})))]
    return [part for part in parts if not isinstance(part, Table) or part.rows]


def _base(run: RunFiles) -> str:
    revision = _inside(run.config, "base_model", "revision")
    name = _inside(run.config, "base_model", "id") or (run.result.base_model.id if run.result is not None else "")
    return f"{name} at {revision}" if revision else name


def _inside(config: Mapping[str, Any], *path: str) -> str:
    found: Any = config
    for name in path:
        found = found.get(name) if isinstance(found, Mapping) else None
    return "" if found is None else str(found)


def _pairs(title: str, content: Mapping[str, Any]) -> Table:
    rows = tuple((str(name), str(value)) for name, value in content.items() if value not in (None, "", [], {}))
    return Table(title, ("", "value"), rows)


def _flat(plan: Any) -> dict[str, Any]:
    if not isinstance(plan, Mapping):
        return {}
    return {name.replace("_", " "): _spelt(value) for name, value in plan.items()}


def _spelt(value: Any) -> str:
    if isinstance(value, Iterable) and not isinstance(value, (str, Mapping)):
        spelt = ", ".join(map(str, value))
        return spelt if len(spelt) <= 200 else f"{spelt[:199]}…"
    return "" if value is None else str(value)[:200]
