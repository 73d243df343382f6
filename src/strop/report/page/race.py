"""A race of methods as a figure and a table: how each candidate stood in each round."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from strop.findings import RaceCurve, RaceRound, race_curve
from strop.report.figures import percent
from strop.report.page.document import Part
from strop.report.page.drawing import COLOURS, SERIES, Figure
from strop.runs import KeptTrial
from strop.tables import Table

STYLES = ("o-", "s--", "^:")
"""Of lines: there may be more candidates than colours."""


def race_parts(trials: Sequence[KeptTrial]) -> list[Part]:
    """Return what a report shows of a race; nothing where nothing raced.

    Args:
        trials: of a run.
    """
    found = race_curve(trials)
    if found is None or not found.base:
        return []
    figure = race_figure(found)
    columns = ("candidate", *(_label(found, number) for number in found.rounds))
    rows = tuple(
        (name, *(_stood(own.get(number)) for number in found.rounds))
        for name, own in (("no edit", found.base), *found.candidates.items())
    )
    return [figure, figure.description, Table("Figure and loss in each round", columns, rows)]


def race_figure(found: RaceCurve) -> Figure:
    """Return how the candidates stood in each round: accuracy, or a classifier's metric; loss where there is neither.

    Args:
        found: of a run.
    """
    every: dict[str, Mapping[int, RaceRound]] = {"no edit": found.base, **found.candidates}
    by_merit = all(own.merit is not None for stood in every.values() for own in stood.values())

    def value(own: RaceRound) -> float:
        return 100 * (own.merit or 0.0) if by_merit else own.loss

    def draw(axes: Any) -> None:
        looks = itertools.cycle((style, colour) for style in STYLES for colour in reversed(SERIES))
        for name, stood in every.items():
            style, colour = next(looks) if name != "no edit" else ("--", "muted")
            axes.plot(list(stood), [value(own) for own in stood.values()], style, color=COLOURS[colour], label=name)
        axes.set_xticks(found.rounds, [_label(found, number) for number in found.rounds])
        axes.set_xlim(found.rounds[0] - 0.3, found.rounds[-1] + 0.3)
        axes.set_ylabel("% right" if by_merit else "loss, nats")
        axes.grid(axis="y")
        axes.figure.legend(loc="outside lower center", ncols=2)

    last = found.rounds[-1]
    stood = {name: value(own[last]) for name, own in every.items() if last in own}
    best = (max if by_merit else min)(stood, key=lambda name: stood[name])
    unit = "% right" if by_merit else "nats"
    return Figure(
        draw=draw,
        title="How the candidates stood in each round",
        description=f"In the last round {best} stands best, at {stood[best]:.3g} {unit}; no edit is at {stood['no edit']:.3g}.",
        height=2.3 + 0.2 * -(-len(every) // 2),
    )


def _label(found: RaceCurve, number: int) -> str:
    return f"round {number}, {found.base[number].examples} examples"


def _stood(own: RaceRound | None) -> str:
    if own is None:
        return "–"
    return f"{own.loss:.3f}" if own.merit is None else f"{percent(own.merit)}, {own.loss:.3f}"
