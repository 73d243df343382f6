"""`strop demo`: an improvement with a budget of minutes, its leaderboard, a few answers, guards, and the report it wrote."""

import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from strop.cli import demo
from strop.runs import RunResult
from strop.tasks import Example


@pytest.fixture
def on_small(monkeypatch: pytest.MonkeyPatch, tiny_folder: Path, facts: Path) -> None:
    """Let the demo be of a tiny model and small facts, and take a moment."""
    monkeypatch.setattr("strop.checkpoints.pull", lambda name, announce: Path(name))
    monkeypatch.setattr(demo, "MODEL", str(tiny_folder))
    monkeypatch.setattr(demo, "TASK", str(facts))
    monkeypatch.setattr(demo, "FAMILIES", ("prompt",))


@pytest.mark.usefixtures("on_small")
def test_a_person_sees_the_leaderboard_answers_guards_and_where_the_report_is(
    strop_command: Callable[..., Any], tmp_path: Path, tiny_folder: Path, facts: Path
) -> None:
    (tmp_path / "run").mkdir()  # taken, so that another name is
    outcome = strop_command("demo", "--out", tmp_path / "run")
    assert outcome.code == 0, outcome.err
    run = tmp_path / "run-2"
    assert "in 600 s: examples in the prompt; in 2 rounds of up to 24 select examples\n" in outcome.err
    result = RunResult.read(run / "result.json")
    assert result.command == "improve"
    assert result.rivals is None or not result.rivals.measured
    parts = [
        "Leaderboard", "The model stays as it is.", "Some held-out facts", "held out (test)", "Guard drift: ", "The report is in ",
    ]  # fmt: skip
    places = [outcome.out.index(part) for part in parts]
    assert places == sorted(places)
    assert outcome.out.count("The city of") == 3
    page = run / "report.html"
    lines = outcome.out.splitlines()
    assert lines[-2] == f"The report is in {page} ({page.stat().st_size / 1000:,.0f} kB): open it in a browser."
    assert (
        lines[-1] == f"Next: strop improve {tiny_folder} --task {facts} --out {tmp_path / 'improved'} --time-limit 20m"
    )
    assert "<h1>" in page.read_text(encoding="utf-8")


@pytest.mark.usefixtures("on_small")
def test_json_names_the_report(strop_command: Callable[..., Any], tmp_path: Path) -> None:
    outcome = strop_command("demo", "--out", tmp_path / "run", "--json", "--quiet")
    assert (outcome.code, outcome.err) == (0, "")
    assert Path(outcome.json["report"]) == tmp_path / "run" / "report.html"
    assert outcome.json["leaderboard"]["standings"][0]["state"] == "chosen"


def test_the_best_known_facts_that_were_fixed_are_shown_one_of_a_relation_first() -> None:
    test = tuple(
        Example(f"P{number}", " A", columns={"relation": "ab"[number > 2], "popularity": number}) for number in range(6)
    )
    fixed = [0, 1, 2, 3, 4]
    found: Any = types.SimpleNamespace(fixed_indices=lambda: list(fixed))
    assert [test[place].prompt for place in demo._best_known(found, test)] == ["P4", "P2", "P3"]
    none: Any = types.SimpleNamespace(fixed_indices=list)
    assert [test[place].prompt for place in demo._best_known(none, test)] == ["P5", "P2", "P4"]
