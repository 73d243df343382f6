"""Two recipes beside their base: a table of figures, and what they show and do not show."""

from collections.abc import Callable

from strop.report.evaluation import asked_title, further_figures
from strop.report.figures import percent
from strop.report.rivals import rival_lines
from strop.report.run import gain_sentence, gain_spelling, interval_text
from strop.runs import Continuation, Price, SideBySide
from strop.statistics import Comparison, Drift, spell_p_value
from strop.tables import Table

Row = tuple[str, ...]


def side_by_side_table(found: SideBySide) -> Table:
    """Return the table of base, A and B, a figure in each row.

    Args:
        found: of `compare_runs` or `compare_recipes`.
    """
    rows = [*_figure_rows(found), *_gain_rows(found), *_drift_rows(found)]
    costs = [side.cost for side in found.sides.values()]
    if any(cost is not None for cost in costs):
        rows.append(("seconds", "", *(f"{cost.wall_seconds:.0f}" if cost is not None else "–" for cost in costs)))
        rows.append(("evaluations", "", *(str(cost.evaluations) if cost is not None else "–" for cost in costs)))
    title = asked_title(found.base_model.id, found.task, found.split, found.shots)
    return Table(title, ("", "base", "A", "B"), tuple(rows))


def verdict_lines(found: SideBySide) -> list[str]:
    """Return which is which, and what the figures show of B against A.

    Args:
        found: of `compare_runs` or `compare_recipes`.
    """
    return [*(f"{name} is {side.folder}." for name, side in found.sides.items()), *_verdict(found)]


def side_lines(found: SideBySide) -> list[str]:
    """Return what each does beside its gain: where that is, the rivals that do as well, the price, and texts that go on.

    Args:
        found: of `compare_runs` or `compare_recipes`.
    """
    lines = []
    for name, side in found.sides.items():
        own = rival_lines(side.over_base.rivals, figures=False)
        if side.over_base.categories is not None:
            own.insert(0, side.over_base.categories.sentence)
        price = side.over_base.price
        if price is not None:
            own.append(f"It {price.drift.verdict}." if price.drift is not None else f"Price: not known. {price.reason}")
        lines += [f"{name}: {line}" for line in own]
    return [*lines, *_other_texts(found), *_continuations(found)]


def _figure_rows(found: SideBySide) -> list[Row]:
    figures = [found.base.to_json(), *(side.figures.to_json() for side in found.sides.values())]
    shown: dict[str, tuple[str, Callable[[float], str]]] = {"examples": ("count", str)}
    further = {name: how for own in figures for name, how in further_figures(own).items()}
    judged = {name: how for name, how in further.items() if name == figures[0].get("metric")}
    shown |= judged  # what gains are measured in comes first
    if figures[0]["accuracy"] is not None:
        shown["accuracy"] = ("accuracy", percent)
    shown["loss"] = ("loss", lambda value: f"{value:.3f}")
    shown |= further
    if "macro" in shown:
        shown["macro average"] = shown.pop("macro")
    return [
        (name, *(spell(own[key]) if own.get(key) is not None else "–" for own in figures))
        for name, (key, spell) in shown.items()
    ]


def _gain_rows(found: SideBySide) -> list[Row]:
    spell, unit = gain_spelling(in_accuracy=_in_accuracy(found), metric=_metric(found))
    compared = [side.over_base.comparison for side in found.sides.values()]
    kinds: dict[str, Callable[[Comparison], str]] = {
        f"gain over base, {unit}": lambda own: spell(own.gain),
        "its 95 % interval": lambda own: interval_text(own, spell),
        "p": lambda own: spell_p_value(own.p_value).removeprefix("p ").removeprefix("= "),
        "fixed, broken": lambda own: f"{own.fixed}, {own.broken}",
    }
    return [(name, "", *(kind(own) for own in compared)) for name, kind in kinds.items()]


def _drift_rows(found: SideBySide) -> list[Row]:
    drifts = _drifts(found)
    if not any(drifts):
        return []
    kinds: dict[str, tuple[str, Callable[[Drift], str]]] = {
        "drift, nats per token": ("0", lambda drift: drift.spelt_kl),
        "words changed": ("0.0 %", lambda drift: percent(drift.changed)),
        "perplexity ×": ("1.000", lambda drift: f"{drift.perplexity_ratio:.3f}"),
    }
    return [
        (name, own, *(spell(drift) if drift is not None else "–" for drift in drifts))
        for name, (own, spell) in kinds.items()
    ]


def _verdict(found: SideBySide) -> list[str]:
    better = found.better
    if found.b_over_a is not None:
        sentence = gain_sentence(
            found.b_over_a.comparison, in_accuracy=_in_accuracy(found), metric=_metric(found), name="B over A"
        )
        if better is None:
            return [sentence, "The interval holds 0: on these examples neither is shown to be better than the other."]
        return [sentence, f"The interval leaves out 0: {better} is better on examples like these."]
    unpaired = "The runs' figures are compared and not each answer, so they are not paired here"
    if better is None:
        told = "and the intervals of their gains overlap: neither is shown to be better than the other"
        return [f"{unpaired}, {told}; --task T compares them example by example."]
    told = f"yet the intervals of their gains do not overlap: {better} is the better one"
    return [f"{unpaired}, {told}; --task T says by how much, example by example."]


def _other_texts(found: SideBySide) -> list[str]:
    of_a, of_b = _drifts(found)
    if of_a is None or of_b is None or (of_a.source, of_a.texts, of_a.tokens) == (of_b.source, of_b.texts, of_b.tokens):
        return []
    return ["Their drift was measured on different texts, so the two figures do not compare."]


def _continuations(found: SideBySide) -> list[str]:
    """Return how a few texts go on, where both were shown the same ones."""
    of_a, of_b = ([] if price is None else price.continuations for price in _prices(found))
    drifts = _drifts(found)
    if not of_a or [each.prompt for each in of_a] != [each.prompt for each in of_b]:
        return []
    if all(drift is not None and drift.identical for drift in drifts):
        return []
    pairs: list[tuple[Continuation, Continuation]] = list(zip(of_a, of_b, strict=True))
    return [
        line
        for a, b in pairs
        for line in (f"  {a.prompt}", f"    base: {a.base}", f"    A:    {a.edited}", f"    B:    {b.edited}")
    ]


def _prices(found: SideBySide) -> list[Price | None]:
    return [side.over_base.price for side in found.sides.values()]


def _drifts(found: SideBySide) -> list[Drift | None]:
    return [price.drift if price is not None else None for price in _prices(found)]


def _in_accuracy(found: SideBySide) -> bool:
    return found.base.accuracy is not None


def _metric(found: SideBySide) -> str | None:
    return found.base.metric[0] if found.base.metric is not None else None
