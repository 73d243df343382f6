"""A table fits the terminal: figures are never broken, names end in …, and what is too wide is turned over."""

import io
from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console
from tests.fixtures.results import LARGE_DRIFT, price_of, result_of

from strop.report import (
    category_table,
    run_table,
    side_by_side_table,
    to_rich,
)
from strop.runs import BaseModel, Change, Cost, Side, SideBySide
from strop.statistics import CategoryGain, Comparison, Figures, Spread
from strop.tables import Table

WIDTHS = (200, 100, 80, 60, 40)


def drawn(table: Table, width: int) -> list[str]:
    """Return a table's lines on a terminal of a width, each of which must fit and end where the first one does."""
    console = Console(file=io.StringIO(), width=width)
    console.print(to_rich(table))
    lines = [line for line in console.file.getvalue().splitlines() if line.strip()]  # type: ignore[attr-defined]
    assert all(len(line) <= width for line in lines), (width, lines)
    borders = [line for line in lines if line[0] in "┏┡└│┃"]
    assert len({len(line.rstrip()) for line in borders}) == 1, lines
    return lines


def spread() -> Spread:
    names = ["official language", "a_category_whose_name_has_no_blank_to_break_it_at_and_goes_on", "capital"]
    gains = tuple(CategoryGain(name, 120, 0.125, 0.5, 0.375, 50, 5, (0.25, 0.5)) for name in names)
    return Spread("accuracy", gains, 0.125, 0.5, 0.375, (0.25, 0.5), (0.1, 0.5))


def run_with_macro() -> Any:
    base = {split: Figures(0.076, 4.461, 895, macro=0.089) for split in ("select", "test")}
    edited = {split: Figures(0.249, 2.775, 895, macro=0.263) for split in ("select", "test")}
    return result_of(
        base=base, edited=edited, base_model=BaseModel("a-model-with-a-rather-long-name-of-its-own", "f" * 32)
    )


def sides() -> SideBySide:
    change = Change(Comparison(-0.05, (-0.182, 0.06), 0.5, 0, 2), None, price_of(LARGE_DRIFT))
    both = [Side(f"runs/{name}", Figures(0.05, 4.4, 40), change, Cost(1.0, 2, 3, 4)) for name in "ab"]
    return SideBySide(
        BaseModel("smollm2-135m", "f" * 32), "world-facts", "test", Figures(0.1, 4.1, 40), both[0], both[1]
    )


TABLES: dict[str, Callable[[], Table]] = {
    "run": lambda: run_table(run_with_macro()),
    "categories": lambda: category_table(spread()),
    "side by side": lambda: side_by_side_table(sides()),
}


@pytest.mark.parametrize("name", list(TABLES))
@pytest.mark.parametrize("width", WIDTHS)
def test_a_table_fits_any_terminal_and_breaks_no_figure(name: str, width: int) -> None:
    table = TABLES[name]()
    lines = drawn(table, width)
    shown = " ".join(lines)
    for row in table.rows:
        for cell in row[1:]:
            for word in cell.split():
                assert f" {word} " in shown, (word, lines)


def test_nothing_changes_where_there_is_room() -> None:
    lines = drawn(TABLES["run"](), 200)
    assert "accuracy before" in lines[2]
    assert len([line for line in lines if line.startswith("│")]) == 2


def test_a_name_that_cannot_be_broken_ends_in_dots() -> None:
    lines = drawn(TABLES["categories"](), 80)
    (row,) = [line for line in lines if "a_categ" in line]
    assert "…" in row
    assert "+25.0 to +50.0" in row
    assert any("official language" in line for line in lines)


def test_what_is_too_wide_is_turned_over() -> None:
    lines = drawn(TABLES["run"](), 60)
    names = [line.split("│")[1].strip() for line in lines if line.startswith("│")]
    assert names == [
        "count", "accuracy before", "accuracy after", "macro before", "macro after", "loss before", "loss after",
    ]  # fmt: skip
    assert any("held out (test)" in line for line in lines)


def test_square_brackets_are_no_markup() -> None:
    assert any("[red]x[/red]" in line for line in drawn(Table("t", ("a", "b"), (("[red]x[/red]", "1"),)), 80))
