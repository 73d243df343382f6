"""What a person reads of a gain's spread: a table by category, the average, and where the gain is."""

import numpy as np

from strop.report import category_table, spread_lines
from strop.statistics import Spread, spread_of


def spread(*, measure: str = "accuracy", categories: int = 2) -> Spread:
    names = [f"c{number:02}" for number in range(categories) for _ in range(40)]
    base = np.zeros(len(names)) if measure == "accuracy" else np.full(len(names), 2.0)
    edited = base.copy()
    edited[:20] = 1.0
    edited[-1] += 0.5 if measure == "loss" else 0.0
    return spread_of(base, edited, categories=names, measure=measure)  # type: ignore[arg-type]


def test_the_table_shows_each_category_and_the_average() -> None:
    table = category_table(spread())
    assert table.columns == ("category", "count", "before", "after", "points", "95 % interval")
    first, second, average = table.rows
    assert first[:5] == ("c00", "40", "0.0 %", "50.0 %", "+50.0")
    assert second[:5] == ("c01", "40", "0.0 %", "0.0 %", "+0.0")
    assert second[5].startswith("-")
    assert average[:5] == ("average", "80", "0.0 %", "25.0 %", "+25.0")
    assert {len(row) for row in table.rows} == {len(table.columns)}


def test_the_table_of_losses_is_in_nats() -> None:
    table = category_table(spread(measure="loss"))
    assert (table.title, table.columns[4]) == ("Loss by category", "nats")
    assert table.rows[0][:5] == ("c00", "40", "2.000", "1.500", "+0.5000")
    assert "nats per token" in spread_lines(spread(measure="loss"))[1]


def test_of_many_categories_the_first_and_last_are_shown() -> None:
    table = category_table(spread(categories=30), most_rows=5)
    assert [row[0] for row in table.rows] == ["c00", "c01", "c02", "(25 others)", "c28", "c29", "average"]
    assert {len(row) for row in table.rows} == {len(table.columns)}


def test_the_lines_say_where_the_gain_is() -> None:
    found = spread()
    assert spread_lines(found)[0] == found.sentence == ("Most of the gain is in 1 of 2 categories (c00); none falls.")
    assert spread_lines(found)[1].startswith("Average over categories: +25.0 points (95 % interval +")
    assert spread_lines(found)[2].startswith("Had other categories of the kind been asked")
    assert len(spread_lines(spread(categories=1))) == 2
