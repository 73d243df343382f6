"""Of candidates that select can hardly tell apart, the one whose requests are shorter is chosen."""

from collections.abc import Callable
from typing import Any

import pytest
from tests.fixtures.entries import entry
from tests.fixtures.recipes import EDITS

from strop.improving.decision import Decision
from strop.improving.entry import Entry
from strop.proving import Trial, TrialKey
from strop.recipe import Recipe

UNEDITED = Trial(TrialKey("none", "race", 0, "select", 200), accuracy=0.1, loss=3.0)


def decision(*entries: Entry) -> Decision:
    return Decision(entries, {}, objective="average", budget_seconds=300.0)


@pytest.fixture
def edits(tiny: Callable[..., Any]) -> Recipe:
    return Recipe.of(tiny("llama"), EDITS)


def test_of_two_as_good_within_one_standard_error_the_shorter_request_wins(edits: Recipe) -> None:
    longer = entry("examples in the prompt", 0.145, tokens=90.2)
    shorter = entry("sharpening", 0.13, tokens=8.1, recipe=edits)
    found = decision(longer, shorter)
    assert found.chosen is shorter
    assert found.leader is shorter
    assert found.sentence.startswith("Sharpening is chosen: +13.0 points ")
    assert found.sentence.endswith(
        " Examples in the prompt scored higher, but that is within one standard error, for 82 more tokens in each request."
    )
    board = found.leaderboard(unedited=UNEDITED, spent_seconds=1.0, final=True)
    whys = {own.name: (own.state, own.why) for own in board.standings}
    assert whys == {
        "sharpening": ("chosen", ""),
        "examples in the prompt": ("tried", "that is within one standard error, for 82 more tokens in each request."),
        "no edit": ("tried", ""),
    }


def test_beyond_one_standard_error_the_better_wins_whatever_it_asks(edits: Recipe) -> None:
    longer = entry("examples in the prompt", 0.16, tokens=90.2)
    shorter = entry("sharpening", 0.13, tokens=8.1, recipe=edits)
    assert decision(longer, shorter).chosen is longer
    assert decision(longer, shorter).sentence.endswith(" The next best is sharpening with +13.0 points.")


@pytest.mark.parametrize("tokens", [8.1, None])
def test_requests_that_are_as_long_or_have_no_tokens_leave_the_better_first(
    edits: Recipe, tokens: float | None
) -> None:
    other, better = (entry(*own, tokens=tokens, recipe=edits) for own in (("bias", 0.13), ("spectrum", 0.14)))
    assert decision(other, better).chosen is better


def test_what_may_not_be_chosen_does_not_win_for_being_shorter(edits: Recipe) -> None:
    longer = entry("examples in the prompt", 0.145, tokens=90.2)
    by_chance = entry("sharpening", 0.13, tokens=8.1, recipe=edits, p_value=0.2)
    assert decision(longer, by_chance).chosen is longer
    assert decision(by_chance).chosen is None


def test_of_another_objective_the_better_wins_for_its_standard_error_is_not_known(edits: Recipe) -> None:
    longer = entry("examples in the prompt", 0.1, tokens=90.2, objective="macro", macro=0.6)
    shorter = entry("LASER", 0.1, tokens=8.1, recipe=edits, objective="macro", macro=0.45)
    assert decision(longer, shorter).chosen is longer


def test_what_is_worse_is_not_said_to_be_within_one_standard_error(edits: Recipe) -> None:
    worse = entry("examples in the prompt", 0.05, tokens=90.2)
    better = entry("sharpening", 0.13, tokens=8.1, recipe=edits)
    board = decision(worse, better).leaderboard(unedited=UNEDITED, spent_seconds=1.0, final=True)
    assert {own.name: own.why for own in board.standings} == {
        "sharpening": "", "examples in the prompt": "", "no edit": ""
    }  # fmt: skip


def test_what_came_in_the_last_round_is_said_to_have_come_late(edits: Recipe) -> None:
    late = " It came late: a larger --time-limit may find more."
    for last in (True, False):
        found = entry("sharpening", 0.13, tokens=8.1, recipe=edits, last=last)
        assert decision(found).sentence.endswith(late) == last
