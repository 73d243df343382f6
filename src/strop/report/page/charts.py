"""The figures of a report: each drawn from a table, with what it shows in words."""

from collections.abc import Sequence
from typing import Any

from strop.findings import ChoiceCurve, FrequencyTable, RemovedComponents, SweepTable
from strop.report.page.drawing import COLOURS, SERIES, Figure
from strop.runs import EditedMatrix
from strop.statistics import Spread
from strop.statistics.intervals import Interval

MOST_CATEGORIES = 24
MOST_MATRICES = 4


def short(text: str, most: int = 26) -> str:
    """Return a label that fits beside a figure.

    >>> short("a very long name of a category")
    'a very long name of a cat…'
    """
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[: most - 1]}…"


def gains(rows: Sequence[tuple[str, float, Interval]], *, title: str, unit: str, scale: float = 100) -> Figure:
    """Return gains with their intervals, one below the other, around a line at no gain.

    Args:
        rows: name, gain and 95 % interval of each.
        title: of the figure.
        unit: of the gains once they are scaled.
        scale: by what gains are multiplied.
    """

    def draw(axes: Any) -> None:
        axes.axvline(0, color=COLOURS["muted"], linewidth=1)
        for place, (_, gain, (low, high)) in enumerate(rows):
            low, high = max(low, gain - 1e3), min(high, gain + 1e3)  # a bound may be none
            colour = COLOURS["accent" if low > 0 else "worse" if high < 0 else "muted"]
            axes.plot([scale * low, scale * high], [place, place], color=colour, linewidth=2.4, solid_capstyle="round")
            axes.plot([scale * gain], [place], "o", color=colour, markersize=7)
        axes.set_yticks(range(len(rows)), [short(name) for name, _, _ in rows])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.grid(axis="x")
        axes.set_axisbelow(True)
        axes.set_xlabel(f"gain, {unit}")

    told = "; ".join(
        f"{name} {scale * gain:+.3g} ({scale * low:+.3g} to {scale * high:+.3g})"
        for name, gain, (low, high) in rows[:12]
    )
    return Figure(
        draw=draw,
        title=title,
        description=f"Gains in {unit} with 95 % intervals: {told}.",
        height=0.65 + 0.28 * len(rows),
    )


def categories(spread: Spread) -> Figure:
    """Return the gain of each category with its interval: of many, those that gain most and those that lose most.

    Args:
        spread: of a gain.
    """
    shown = list(spread.categories)
    if len(shown) > MOST_CATEGORIES:
        shown = [*shown[: MOST_CATEGORIES // 2], *shown[-MOST_CATEGORIES // 2 :]]
    ordered = sorted(shown, key=lambda own: -own.gain)
    points = spread.measure == "accuracy"
    title = "Gain by category" + (
        f", {len(shown)} of {len(spread.categories)}" if len(shown) < len(spread.categories) else ""
    )
    return gains(
        [(f"{short(own.name, 20)} ({own.count})", own.gain, own.ci95) for own in ordered],
        title=title,
        unit="points" if points else "nats per token",
        scale=100 if points else 1,
    )


def frequency(table: FrequencyTable) -> Figure:
    """Return the figures of rare and frequent facts before and after, and below them the gain with its interval.

    Args:
        table: of a run.
    """
    points = table.measure == "accuracy"
    scale, unit = (100, "% right") if points else (1, "loss, nats")
    names = [range_of(own.least, own.most) for own in table.bins]
    places = list(range(len(names)))

    def draw(axes: list[Any]) -> None:
        above, below = axes
        for label, colour, values in (
            ("before", "before", [own.before for own in table.bins]),
            ("after", "accent", [own.after for own in table.bins]),
        ):
            above.plot(places, [scale * value for value in values], "o-", color=COLOURS[colour], label=label)
        above.set_ylabel(unit)
        above.set_ylim(bottom=0)
        above.legend(loc="best", ncols=2)
        above.set_xticks(places, [""] * len(places))
        below.axhline(0, color=COLOURS["muted"], linewidth=1)
        for place, own in zip(places, table.bins, strict=True):
            low, high = own.comparison.ci95
            colour = COLOURS["accent" if low > 0 else "worse" if high < 0 else "muted"]
            below.plot([place, place], [scale * low, scale * high], color=colour, linewidth=2.4, solid_capstyle="round")
            below.plot([place], [scale * own.comparison.gain], "o", color=colour, markersize=6)
        below.set_ylabel("gain, points" if points else "gain, nats")
        below.set_xticks(places, [name.replace("–", "\n–") for name in names])
        below.set_xlabel("how often the training data held the fact (or its stand-in)")
        for each in axes:
            each.grid(axis="y")
            each.set_xlim(-0.4, len(places) - 0.6)

    told = "; ".join(
        f"{name}: {own.before:.3g} before, {own.after:.3g} after" for name, own in zip(names, table.bins, strict=True)
    )
    return Figure(
        draw=draw,
        title="Gain against frequency",
        description=f"From rare to frequent facts: {told}.",
        height=3.4,
        rows=2,
    )


def range_of(least: float, most: float) -> str:
    """Spell from where to where numbers reach.

    >>> range_of(11508, 104710), range_of(5, 5)
    ('12k–105k', '5')
    """
    return _amount(least) if least == most else f"{_amount(least)}–{_amount(most)}"


def _amount(value: float) -> str:
    """Spell a number in few letters.

    >>> _amount(24874500.0), _amount(1200.0), _amount(0.5)
    ('25M', '1.2k', '0.5')
    """
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            scaled = value / size
            return f"{scaled:.0f}{letter}" if scaled >= 10 else f"{scaled:.2g}{letter}"
    return f"{value:.3g}"


def spectra(matrices: Sequence[EditedMatrix]) -> Figure | None:
    """Return the singular values of the matrices that changed most: what was kept, and what was removed or scaled.

    Args:
        matrices: of a run, those that changed most first.
    """
    shown = [own for own in matrices if own.values][:MOST_MATRICES]
    if not shown:
        return None
    columns = 2 if len(shown) > 1 else 1
    rows = -(-len(shown) // columns)

    def draw(axes: Any) -> None:
        every = axes if isinstance(axes, list) else [axes]
        for each, own in zip(every, shown, strict=False):
            _spectrum(each, own)
        every[0].figure.supxlabel("singular values, the largest first", fontsize="medium", color=COLOURS["muted"])
        for empty in every[len(shown) :]:
            empty.axis("off")

    told = "; ".join(
        f"{own.name}: {own.removed} of {own.count} removed, mean change {own.mean_change:.1%}" for own in shown
    )
    return Figure(
        draw=draw,
        title="Spectra of the edited matrices",
        description=told + ".",
        height=1.9 * rows,
        rows=rows,
        columns=columns,
    )


def _spectrum(axes: Any, own: EditedMatrix) -> None:
    scaled = not own.removed
    axes.set_title(own.name)
    axes.grid(axis="y")
    if scaled:
        changes = [100 * (scale - 1) for scale in own.scales]
        axes.axhline(0, color=COLOURS["muted"], linewidth=1)
        axes.vlines(own.indices, 0, changes, color=COLOURS["accent"], linewidth=1)
        axes.set_ylabel("change, %")
        return
    positive = [
        (index, value, scale)
        for index, value, scale in zip(own.indices, own.values, own.scales, strict=True)
        if value > 0
    ]
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("")
    gone = [(index, value) for index, value, scale in positive if scale == 0]
    kept = [(index, value * scale) for index, value, scale in positive if scale > 0]
    for points, colour, label in ((gone, "soft", "removed"), (kept, "accent", "kept")):
        if points:
            axes.plot(*zip(*points, strict=True), ".", color=COLOURS[colour], markersize=4, label=label)
    axes.set_ylabel("σ")
    axes.legend(loc="best", handletextpad=0.1)


def sweep(table: SweepTable, *, finished: bool = True) -> Figure:
    """Return the loss after single edits against their layer: a panel for each matrix type, a line for each share kept.

    Where few layers were tried at a share, there are dots and no lines. Of more than twelve shares twelve are drawn.

    Args:
        table: of a search.
        finished: the search is; else the figure says that it goes on.
    """
    names = list(table.losses)
    shares = sorted({share for own in table.losses.values() for share in own})
    most = 2 * len(SERIES)
    shown = shares if len(shares) <= most else [shares[round(n * (len(shares) - 1) / (most - 1))] for n in range(most)]
    columns = 2 if len(names) > 1 else 1
    rows = -(-len(names) // columns)
    lowest, highest = _range_of_losses(table)
    layers = [layer for own in table.losses.values() for tried in own.values() for layer in tried]

    def panel(axes: Any, name: str) -> None:
        if table.base is not None:
            axes.axhline(table.base, color=COLOURS["muted"], linewidth=1, linestyle=(0, (4, 3)))
        for (colour, style), share in zip(_styles(len(shown)), shown, strict=True):
            tried = table.losses[name].get(share, {})
            axes.plot(
                list(tried), list(tried.values()), marker=".", linestyle=style if len(tried) > 3 else "none",
                color=COLOURS[colour], label=f"{100 * share:.3g} %",
            )  # fmt: skip
        axes.set_title(name)
        axes.set_ylim(lowest, highest)
        axes.set_xlim(min(layers) - 0.5, max(layers) + 0.5)
        axes.grid(axis="y")
        axes.xaxis.get_major_locator().set_params(integer=True)

    def draw(axes: Any) -> None:
        every = axes if isinstance(axes, list) else [axes]
        for each, name in zip(every, names, strict=False):
            panel(each, name)
        for each in every[len(names) :]:
            each.axis("off")
        for each in every[max(0, len(names) - columns) : len(names)]:
            each.set_xlabel("layer")
        every[0].set_ylabel("loss, nats")
        handles, labels = every[0].get_legend_handles_labels()
        every[0].figure.legend(handles, labels, loc="outside lower center", ncols=3, title="share of the rank kept")

    kind, share, layer, loss = table.lowest
    base = f", and {table.base:.3f} without an edit (the dashed line)" if table.base is not None else ""
    told = f"The lowest loss is {loss:.3f}, of layer {layer} {kind} at {100 * share:.3g} % of its rank{base}."
    going_on = "" if finished else f" The search is not finished: {table.count} edits were tried so far."
    return Figure(
        draw=draw,
        title=f"Loss against layer and rank, on {table.examples} examples" + ("" if finished else ", unfinished"),
        description=told + going_on,
        height=0.95 + 1.45 * rows + (0.2 if len(shown) > len(SERIES) else 0),
        rows=rows,
        columns=columns,
    )


def _styles(count: int) -> list[tuple[str, str]]:
    """Return a colour and a kind of line for each of some series, from light to dark; more than six come in pairs of one colour.

    >>> _styles(2), _styles(7)[:3]
    ([('one', '-'), ('six', '-')], [('one', '-'), ('one', ':'), ('two', '-')])
    """
    if count > len(SERIES):
        return [(SERIES[place // 2], ":" if place % 2 else "-") for place in range(count)]
    apart = (len(SERIES) - 1) / max(1, count - 1)
    return [(SERIES[round(place * apart)], "-") for place in range(count)]


def _range_of_losses(table: SweepTable) -> tuple[float, float]:
    """Return what the panels show of the losses: all that are low, and of the high ones as much as leaves the low ones visible."""
    every = sorted(loss for own in table.losses.values() for layers in own.values() for loss in layers.values())
    low, middle, high = every[0], every[len(every) // 2], every[min(len(every) - 1, int(0.9 * len(every)))]
    if table.base is not None:
        low, middle = min(low, table.base), max(middle, table.base)
    high = max(middle, min(high, low + 4 * (middle - low)))
    reach = (high - low) or 1.0
    return low - 0.08 * reach, high + 0.12 * reach


def curve(found: ChoiceCurve) -> Figure:
    """Return how a choice went: accuracy where there is one, and loss, trial by trial or epoch by epoch.

    Args:
        found: of a run.
    """
    places = list(range(len(found.points)))
    best = max((place for place in places if found.points[place].best), default=0)
    with_merit = all(point.merit is not None for point in found.points)

    def draw(axes: Any) -> None:
        every = axes if isinstance(axes, list) else [axes]
        lines: list[tuple[str, list[float]]] = [("loss, nats", [point.loss for point in found.points])]
        if with_merit:
            lines.insert(0, ("% right", [100 * (point.merit or 0.0) for point in found.points]))
        style = "o-" if found.by_epoch or len(places) <= 12 else "."
        for each, (label, values) in zip(every, lines, strict=True):
            each.plot(places, values, style, color=COLOURS["accent"])
            each.plot(
                [best], [values[best]], "o", markersize=10, markerfacecolor="none", color=COLOURS["ink"], clip_on=False
            )
            each.axhline(values[0], color=COLOURS["muted"], linewidth=1, linestyle=(0, (4, 3)))
            each.set_ylabel(label)
            each.grid(axis="y")
            each.set_xlabel("epoch, 0 is before" if found.by_epoch else "trial, 0 is before")
            each.xaxis.get_major_locator().set_params(integer=True)

    first, chosen = found.points[0], found.points[best]
    told = f"The best of {len(places) - 1} was {chosen.label}, at a loss of {chosen.loss:.3f} against {first.loss:.3f} before."
    title = "Learning curve" if found.by_epoch else "How the choice went"
    return Figure(
        draw=draw,
        title=f"{title}, on {found.examples} select examples",
        description=told,
        height=1.9,
        columns=2 if with_merit else 1,
    )


def removed(found: RemovedComponents) -> Figure:
    """Return how near what the smallest components say is to what is right, against how many of them are kept.

    Args:
        found: of one edited matrix.
    """
    places = [100 * own.share for own in found.shares]

    def draw(axes: Any) -> None:
        axes.fill_between(
            places, [own.ci95[0] for own in found.shares], [own.ci95[1] for own in found.shares],
            color=COLOURS["soft"], alpha=0.45, linewidth=0,
        )  # fmt: skip
        axes.plot(places, [own.similarity for own in found.shares], "o-", color=COLOURS["accent"])
        axes.axhline(found.edited_similarity, color=COLOURS["muted"], linewidth=1, linestyle=(0, (4, 3)))
        axes.annotate("with the edit", (places[0], found.edited_similarity), xytext=(0, 4), textcoords="offset points")
        axes.set_xlabel("% of the components kept, the smallest ones")
        axes.set_ylabel("similarity to the right answer")
        axes.grid(axis="y")

    told = "; ".join(f"{100 * own.share:.0f} %: {own.similarity:.3f}" for own in found.shares)
    return Figure(
        draw=draw,
        title=f"What the removed components of {found.matrix} say",
        description=f"Mean cosine with the right answer: {told}.",
        height=2.4,
    )
