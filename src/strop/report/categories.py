"""How a gain is spread over categories: a table, and the sentences below it."""

from strop.report.figures import percent, signed_points
from strop.statistics import CategoryGain, Spread
from strop.tables import Table

MOST_ROWS = 24
"""Of a table for a terminal."""


def category_table(
    spread: Spread, *, most_rows: int = MOST_ROWS, names: tuple[str, str] = ("before", "after")
) -> Table:
    """Return the table of gains by category, what adds most to the gain first, and the average over categories last.

    Args:
        spread: of a gain.
        most_rows: where there are more categories, those in the middle are left out and counted.
        names: of the two models.
    """
    shown: list[tuple[str, ...]] = [_row(category, spread) for category in spread.categories]
    if len(shown) > most_rows:
        first, last = most_rows - most_rows // 2, most_rows // 2
        between = (f"({len(shown) - most_rows} others)", *("" for _ in range(5)))
        shown = [*shown[:first], between, *shown[len(shown) - last :]]
    average = (
        "average",
        str(spread.count),
        *(_figure(value, spread) for value in (spread.macro_base, spread.macro_edited)),
        _gain(spread.macro_gain, spread),
        _interval(spread.macro_ci95, spread),
    )
    gain = "points" if spread.measure == "accuracy" else "nats"
    columns = ("category", "count", *names, gain, "95 % interval")
    return Table(f"{spread.measure.capitalize()} by category", columns, (*shown, average))


def _row(category: CategoryGain, spread: Spread) -> tuple[str, ...]:
    return (
        category.name,
        str(category.count),
        _figure(category.base, spread),
        _figure(category.edited, spread),
        _gain(category.gain, spread),
        _interval(category.ci95, spread),
    )


def _figure(value: float, spread: Spread) -> str:
    return percent(value) if spread.measure == "accuracy" else f"{value:.3f}"


def _gain(value: float, spread: Spread) -> str:
    return signed_points(value) if spread.measure == "accuracy" else f"{value:+.4f}"


def _interval(bounds: tuple[float, float], spread: Spread) -> str:
    low, high = (_gain(bound, spread) for bound in bounds)
    return f"{low} to {high}"


def spread_lines(spread: Spread) -> list[str]:
    """Return what to say of a gain's spread: where it is, the average over categories, and what other categories would show.

    Args:
        spread: of a gain.
    """
    unit = "points" if spread.measure == "accuracy" else "nats per token"
    lines = [
        spread.sentence,
        f"Average over categories: {_gain(spread.macro_gain, spread)} {unit} "
        f"(95 % interval {_interval(spread.macro_ci95, spread)}).",
    ]
    if len(spread.categories) > 1:
        lines.append(
            f"Had other categories of the kind been asked, the gain's interval would be "
            f"{_interval(spread.ci95_categories, spread)} {unit}."
        )
    return lines
