"""Answers that changed, in lines that fit a terminal."""

from strop.report import changed_lines
from strop.statistics import ChangedAnswer, ChangedAnswers

LONG = ChangedAnswer(7, "word " * 60 + "The city of Lyon\nis in", "France", "the", "France, " * 30, 4.0, 0.5)


def test_each_example_is_shown_with_what_is_wanted_and_both_answers() -> None:
    lines = changed_lines(ChangedAnswers((LONG,), (), fixed_count=3, broken_count=0))
    assert lines[0] == "Fixed: 3, of which 1:"
    assert lines[1].startswith("  row 7: …")
    assert lines[1].endswith("The city of Lyon is in")
    assert lines[2:4] == ["    wanted: France", "    before: the"]
    assert lines[4].startswith("    after:  France, ")
    assert lines[4].endswith("…")
    assert lines[5] == "Broken: 0."
    assert max(map(len, lines)) < 120


def test_two_models_have_their_names() -> None:
    lines = changed_lines(ChangedAnswers((), (LONG,), fixed_count=0, broken_count=1), names=("A", "B"))
    assert lines[1] == "Broken: 1:"
    assert lines[4] == "    A:      the"


def test_nothing_is_said_where_nobody_asked() -> None:
    assert changed_lines(None) == []
