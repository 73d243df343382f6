"""`strop improve`: what it prints before, during and after the race, and what it says to a wrong call."""

import json
from pathlib import Path
from typing import Any

import pytest

from strop.runs import Leaderboard

QUICK = ["--families", "sharpen,laser", "--select-limit", "12", "--test-limit", "10", "--no-rivals"]


@pytest.fixture
def call(tiny_folder: Path, facts: Path, tmp_path: Path) -> list[object]:
    return ["improve", tiny_folder, "--task", facts, "--out", tmp_path / "run"]


def test_a_person_gets_the_leaderboard_the_decision_and_a_next_command(
    strop_command: Any, call: list[object], tiny_folder: Path, facts: Path, tmp_path: Path
) -> None:
    outcome = strop_command(*call, *QUICK)
    assert outcome.code == 0, outcome.err
    assert "in 300 s: sharpening by signs, LASER; in 2 rounds of up to 12 select examples\n" in outcome.err
    assert "guard: drift at most 0.05 nats per token (--guard none lifts it)\n" in outcome.err
    assert "left out: spectrum: the family train was not asked for.\n" in outcome.err
    board = Leaderboard.read(tmp_path / "run" / "leaderboard.json")
    assert outcome.out.startswith("Leaderboard ")
    assert "no edit" in outcome.out
    for word in board.decision.split():
        assert word in outcome.out
    assert outcome.out.index("Leaderboard") < outcome.out.index("held out (test)")
    assert board.chosen.name == "no edit"  # twelve examples show no gain
    line = outcome.out.splitlines()[-1]
    assert line == (
        f"Next: strop improve {tiny_folder} --task {facts} --out {tmp_path / 'run-improve'} --preset good "
        "--select-limit 12 --test-limit 10"
    )


def test_json_holds_the_leaderboard_and_a_resume_repeats_nothing(
    strop_command: Any, call: list[object], tmp_path: Path
) -> None:
    outcome = strop_command(*call, *QUICK, "--guard", "none", "--json", "--quiet")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.json["command"] == "improve"
    assert outcome.json["leaderboard"] == json.loads((tmp_path / "run" / "leaderboard.json").read_text())
    assert "guards" not in outcome.json
    again = strop_command(*call, *QUICK, "--guard", "none", "--json", "--quiet", "--resume")
    assert again.json == outcome.json


def test_another_guard_on_drift_takes_the_place_of_the_usual_one(strop_command: Any, call: list[object]) -> None:
    outcome = strop_command(*call, *QUICK, "--guard", "drift:0.2", "--json", "--quiet")
    assert [guard["bound"] for guard in outcome.json["guards"]] == [0.2]


def test_a_wrong_call_is_refused_in_one_sentence(refused: Any, call: list[object]) -> None:
    assert refused(*call, "--families", "lazer", code=2) == (
        "families (--families) are among sharpen, laser, prune, train, prompt, not 'lazer'."
    )
    assert refused(*call, "--guard", "none", "--guard", "drift:1", code=2) == (
        "--guard none lifts the guard on drift, and goes with no other; leave it or the others out."
    )
    assert "'5 parsecs'" in refused(*call, "--time-limit", "5 parsecs", code=2)
