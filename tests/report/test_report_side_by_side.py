"""What a person reads of two recipes beside their base."""

import dataclasses
from typing import Any

import numpy as np
import pytest
from tests.fixtures.results import LARGE_DRIFT, SMALL_DRIFT, gain_of, price_of, result_of

from strop.report import side_by_side_table, side_lines, verdict_lines
from strop.runs import BaseModel, Change, Cost, Price, Side, SideBySide
from strop.statistics import Comparison, Figures, Rival, Rivals, spread_of

PAIRED = Change(Comparison(0.2, (0.17, 0.23), 1e-5, 90, 10))


def side(name: str, gain: float, **changes: Any) -> Side:
    own = result_of(gain)
    change = Change(own.comparison["test"], **changes)
    return Side(f"runs/{name}", own.edited["test"], change, own.cost)


def beside(**changes: Any) -> SideBySide:
    a, b = (
        side("laser", 0.1, price=price_of(LARGE_DRIFT)),
        side("learned", 0.3, price=price_of(SMALL_DRIFT, "by a lake")),
    )
    base = Figures(0.05, 6.5, 400)
    return dataclasses.replace(SideBySide(BaseModel("tiny", "0"), "facts", "test", base, a, b), **changes)


def test_each_figure_is_a_row_of_base_a_and_b() -> None:
    table = side_by_side_table(beside())
    assert (table.title, table.columns) == ("tiny on facts/test", ("", "base", "A", "B"))
    assert table.rows == (
        ("examples", "400", "400", "400"),
        ("accuracy", "5.0 %", "15.0 %", "35.0 %"),
        ("loss", "6.500", "5.500", "5.500"),
        ("gain over base, points", "", "+10.0", "+30.0"),
        ("its 95 % interval", "", "+8.0 to +12.0", "+28.0 to +32.0"),
        ("p", "", "0.001", "0.001"),
        ("fixed, broken", "", "30, 4", "30, 4"),
        ("drift, nats per token", "0", "0.60", "0.03"),
        ("words changed", "0.0 %", "40.0 %", "5.0 %"),
        ("perplexity ×", "1.000", "1.740", "1.010"),
        ("seconds", "", "60", "60"),
        ("evaluations", "", "41", "41"),
    )


def test_what_is_not_known_of_one_side_is_a_dash_and_of_neither_no_row() -> None:
    half = beside(b=dataclasses.replace(side("old", 0.1), cost=None))
    rows = {name: cells for name, *cells in side_by_side_table(half).rows}
    assert rows["drift, nats per token"] == ["0", "0.60", "–"]
    assert rows["seconds"] == ["", "60", "–"]
    neither = {name for name, *_ in side_by_side_table(dataclasses.replace(half, a=half.b)).rows}
    assert not {"drift, nats per token", "seconds", "evaluations"} & neither


def test_a_task_with_categories_has_macro_averages_and_one_of_losses_no_accuracy() -> None:
    figures = [Figures(0.05, 6.5, 400, macro=macro) for macro in (0.04, 0.1, 0.2)]
    with_macro = beside(
        base=figures[0],
        a=dataclasses.replace(side("a", 0.1), figures=figures[1]),
        b=dataclasses.replace(side("b", 0.1), figures=figures[2]),
    )
    assert ("macro average", "4.0 %", "10.0 %", "20.0 %") in side_by_side_table(with_macro).rows
    loss = Figures(None, 2.0, 400)
    of_losses = beside(
        base=loss,
        a=dataclasses.replace(side("a", 0.1), figures=loss),
        b=dataclasses.replace(side("b", 0.1), figures=loss),
    )
    names = [name for name, *_ in side_by_side_table(of_losses).rows]
    assert "gain over base, nats per token" in names
    assert "accuracy" not in names


def test_a_classifier_is_shown_by_its_metric_first() -> None:
    judged = [Figures(0.5, 0.7, 400, metric=("f1", value)) for value in (0.4, 0.5, 0.6)]
    found = beside(
        base=judged[0],
        a=dataclasses.replace(side("a", 0.1), figures=judged[1]),
        b=dataclasses.replace(side("b", 0.1, price=Price(None, reason="It is a classifier.")), figures=judged[2]),
        b_over_a=PAIRED,
    )
    rows = side_by_side_table(found).rows
    assert [row[0] for row in rows[:4]] == ["examples", "f1", "accuracy", "loss"]
    assert rows[1] == ("f1", "0.4000", "0.5000", "0.6000")
    assert ("gain over base, of f1", "", "+0.1000", "+0.1000") in rows
    lines = [*verdict_lines(found), *side_lines(found)]
    assert any(line.startswith("B over A: +0.2000 of f1 (95 % interval +0.1700 to +0.2300;") for line in lines)
    assert "B: Price: not known. It is a classifier." in lines


def test_two_runs_are_said_not_to_be_paired_and_only_far_intervals_tell_them_apart() -> None:
    apart = " ".join(verdict_lines(beside()))
    assert "they are not paired here, yet the intervals of their gains do not overlap: B is the better one" in apart
    near = " ".join(verdict_lines(beside(b=side("learned", 0.11))))
    assert "and the intervals of their gains overlap: neither is shown to be better than the other" in near
    assert "better one" not in near
    for said in (apart, near):
        assert "--task T" in said
        assert "B over A" not in said


@pytest.mark.parametrize(
    ("compared", "told"),
    [
        (PAIRED.comparison, "The interval leaves out 0: B is better on examples like these."),
        (gain_of(-0.2, 0.03), "The interval leaves out 0: A is better on examples like these."),
        (gain_of(0.2, 0.2), "The interval holds 0: on these examples neither is shown to be better than the other."),
    ],
)
def test_paired_the_gain_of_b_over_a_has_its_interval_and_what_that_shows(compared: Comparison, told: str) -> None:
    lines = verdict_lines(beside(b_over_a=Change(compared)))
    assert lines[:2] == ["A is runs/laser.", "B is runs/learned."]
    assert lines[2].startswith("B over A: ")
    assert "95 % interval" in lines[2]
    assert lines[3] == told


def test_what_each_does_beside_its_gain_is_told_under_its_name() -> None:
    shots = Rival(0.27, 2.0, 400, gain_of(-0.12, 0.05), tokens_per_request=81.0, edited_tokens_per_request=9.0)
    worse = Rival(0.01, None, 400, gain_of(0.14, 0.05), answer=" China")
    spread = spread_of(np.zeros(80), np.repeat([0.0, 1.0], 40), categories=["x"] * 40 + ["y"] * 40, measure="accuracy")
    a = side(
        "a", 0.1, rivals=Rivals({"constant": worse, "shots_5": shots}), price=price_of(LARGE_DRIFT), categories=spread
    )
    lines = side_lines(beside(a=a))
    assert [line for line in lines if line.startswith(("A: ", "B: "))] == [
        "A: Most of the gain is in 1 of 2 categories (y); none falls.",
        "A: Five examples in the prompt do better (27.0 % against 15.0 %), at 9 times the tokens of a prompt.",
        "A: It changes 2 of 5 words the base would say: for this task only.",
        "B: It changes 1 of 20 words the base would say: try your other uses first.",
    ]


def test_texts_that_go_on_are_shown_three_times_where_both_read_the_same() -> None:
    lines = side_lines(beside())
    assert lines[-4:] == ["  The town lies", "    base: on a hill", "    A:    of a river", "    B:    by a lake"]
    own = dataclasses.replace(SMALL_DRIFT, source="notes.txt")
    other = side_lines(beside(b=side("b", 0.3, price=Price(own))))
    assert other[-1] == "Their drift was measured on different texts, so the two figures do not compare."
    assert not any("base: " in line for line in other)


def test_what_changes_nothing_shows_no_texts() -> None:
    nothing = dataclasses.replace(SMALL_DRIFT, kl=0.0, changed=0.0, perplexity_ratio=1.0)
    same = beside(a=side("a", 0, price=price_of(nothing)), b=side("b", 0, price=price_of(nothing)))
    assert not any("base: " in line for line in side_lines(same))


def test_an_older_run_shows_what_it_has() -> None:
    old = Side("old", Figures(0.1, 5.0, 400), Change(gain_of(0.05, 0.01)), Cost(1.0, 2, 3, 4))
    assert side_lines(beside(a=old, b=old)) == []
    assert len(verdict_lines(beside(a=old, b=old))) == 3
