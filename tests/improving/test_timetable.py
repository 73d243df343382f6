"""A first round that has no time for half of those in it takes that of the next as well, at as many examples as before."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from tests.fixtures.runs import Notes

from strop.improving import ImprovePlan, improve
from strop.improving.pace import EXAMPLES, Pace, Tempo
from strop.improving.plan import Round
from strop.improving.timetable import Timetable
from strop.proving import Budget, RunOptions
from strop.runs import Leaderboard

THREE = Timetable((Round(0.25, 0.3), Round(0.5, 0.3), Round(1.0, 0.3)), (50, 100, 200))


def test_the_times_of_rounds_add_up_and_what_comes_after_them_has_the_rest() -> None:
    assert [THREE.share_until(number) for number in (1, 2, 3, 4)] == pytest.approx([0.3, 0.6, 0.9, 1.0])
    assert [THREE.data_of(number) for number in (1, 2, 3, 4)] == [0.25, 0.5, 1.0, 1.0]


@pytest.mark.parametrize(
    ("number", "needed", "expected"),
    [
        (1, {"a": 10.0, "b": 10.0, "c": 90.0, "d": 90.0}, (["a", "b"], 1)),
        (1, {"a": 20.0, "b": 20.0, "c": 90.0, "d": 90.0}, (["a", "b"], 2)),
        (1, {"a": 40.0, "b": 40.0, "c": 90.0, "d": 90.0}, (["a", "b"], 3)),
        (1, {"a": 50.0, "b": 50.0, "c": 90.0}, (["a"], 2)),
        (1, {"a": 500.0, "b": 500.0}, (["a"], 1)),
        (1, {"a": 20.0, "b": 60.0, "c": 60.0, "d": 60.0, "e": 60.0}, (["a", "b"], 3)),
        (2, {"a": 40.0, "b": 40.0}, (["a"], 2)),
        (2, {"a": 70.0, "b": 70.0}, (["a"], 2)),
        (3, {"a": 400.0, "b": 20.0, "c": 20.0}, (["b", "c"], 3)),
        (4, {"a": 60.0, "b": 60.0, "c": 60.0}, (["a"], 4)),
    ],
)
def test_the_first_round_reaches_as_far_as_half_of_them_need(
    number: int, needed: Mapping[str, float], expected: tuple[list[str], int]
) -> None:
    assert THREE.turns(number, needed, lambda until: 100 * THREE.share_until(until)) == expected


@pytest.fixture
def raced(
    spoilt: Callable[..., Any], small_tokenizer: Any, many_facts: Callable[..., Any]
) -> Callable[[], tuple[Leaderboard, list[str]]]:
    """Races prompts and a sharpening; returns the leaderboard and what was told."""

    def run() -> tuple[Leaderboard, list[str]]:
        plan, notes = ImprovePlan(families=("sharpen", "prompt"), select_limit=100, test_limit=30), Notes()
        options = RunOptions(budget=Budget(seconds=10_000), rivals=False, progress=notes)
        found = improve(spoilt(), small_tokenizer, many_facts(), plan, options)
        assert found.leaderboard is not None
        return found.leaderboard, notes.lines

    return run


def test_a_round_that_takes_the_time_of_all_is_the_last_with_turns_and_the_best_are_looked_at_once_more(
    raced: Callable[[], tuple[Leaderboard, list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def reaching(self: Timetable, number: int, needed: Mapping[str, float], _: object) -> tuple[list[str], int]:
        return [*needed][:2], max(number, len(self.rounds))

    monkeypatch.setattr(Timetable, "turns", reaching)
    board, lines = raced()
    assert board.decision.startswith("The model stays as it is. The best that was tried is ")
    judged = [own for own in board.standings if own.state in ("tried", "chosen")]
    assert {own.select.count for own in judged if own.select is not None} == {100}
    assert [line for line in lines if line.startswith("round ")] == [
        "round 1 of 2: 2 in the running, 50 select examples",
        "round 2 of 2: 2 in the running, 100 select examples",
    ]
    assert "it takes the time until the end of round 2, so that more of them have a turn" in lines
    assert sum("sharpening by signs: at most 8 steps" in line for line in lines) == 1  # as many as a last round has


def test_who_waited_for_a_turn_has_a_short_one_in_what_is_left(
    raced: Callable[[], tuple[Leaderboard, list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    needs: dict[int, float] = {}

    def one_by_one(self: Timetable, number: int, needed: Mapping[str, float], _: object) -> tuple[list[str], int]:
        needs[number] = needed["sharpening by signs"]
        return [*needed][:1] if number <= len(self.rounds) else [*needed], number

    monkeypatch.setattr(Timetable, "turns", one_by_one)
    board, lines = raced()
    [own] = [own for own in board.standings if own.name == "sharpening by signs"]
    assert own.select is not None
    assert own.select.count == 100
    assert sum(line.startswith("sharpening by signs: at most 8 steps") for line in lines) == 1
    assert needs[3] < needs[2] / 2


def test_what_is_expected_of_work_holds_until_it_is_timed() -> None:
    tempo = Tempo(Pace(0.01, 20.0), budget_seconds=100.0)
    tempo.expect("asked long", 50)
    tempo.expect(EXAMPLES, 50)  # which has been timed
    assert (tempo.foresee("asked long", 10), tempo.foresee(EXAMPLES, 10)) == (5.0, pytest.approx(0.1))
    tempo.note("asked long", 10, 2.0)
    assert tempo.foresee("asked long", 10) == pytest.approx(2.0)
    assert tempo.slowness == 1.0  # that it was expected to take longer says nothing of the machine
