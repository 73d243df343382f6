"""Rivals and examples in the prompt on the command line."""

import json
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.rivals


@pytest.fixture
def search_call(tiny_folder: Path, facts: Path, quick: list[str], tmp_path: Path) -> list[object]:
    return ["search", tiny_folder, "--task", facts, "--out", tmp_path / "run", *quick]


def test_a_run_ends_with_its_rivals_and_without_them_where_they_are_not_wanted(
    strop_command: Any, search_call: list[object], tmp_path: Path
) -> None:
    outcome = strop_command(*search_call, "--quiet")
    assert (outcome.code, outcome.err) == (0, "")
    for said in ("Rival, always answering ' ", "Rival, 5 examples in the prompt: ", "Most frequent answer: "):
        assert said in outcome.out
    assert set(json.loads((tmp_path / "run" / "result.json").read_text())["rivals"]) == {
        "constant", "shots_1", "shots_5", "answers",
    }  # fmt: skip
    search_call[search_call.index(tmp_path / "run")] = tmp_path / "other"
    outcome = strop_command(*search_call, "--quiet", "--no-rivals")
    assert "Rival" not in outcome.out
    assert "rivals" not in json.loads((tmp_path / "other" / "result.json").read_text())


def test_eval_with_a_recipe_shows_what_costs_nothing(
    strop_command: Any, search_call: list[object], tiny_folder: Path, facts: Path, tmp_path: Path
) -> None:
    strop_command(*search_call, "--quiet", "--no-rivals")
    call = ["eval", tiny_folder, "--task", facts, "--quiet"]
    found = strop_command(*call, "--json", "--recipe", tmp_path / "run" / "recipe").json
    assert set(found["rivals"]) == {"constant", "answers"}
    shown = strop_command(*call, "--recipe", tmp_path / "run" / "recipe").out
    assert "Rival, always answering ' " in shown
    assert "rivals" not in strop_command(*call, "--json").json


def test_examples_are_put_before_every_prompt(
    strop_command: Any, search_call: list[object], tiny_folder: Path, facts: Path, tmp_path: Path
) -> None:
    call = ["eval", tiny_folder, "--task", facts, "--quiet"]
    plain, shown, as_task_file = (
        strop_command(*call, "--json", *more).json for more in ([], ["--shots", 2], ["--shots", 0])
    )
    assert shown["task"]["shots"] == 2
    assert shown["base"]["loss"] != plain["base"]["loss"]
    assert as_task_file == plain
    assert ", 2 examples in each prompt" in " ".join(strop_command(*call, "--shots", 2).out.split())
    outcome = strop_command(*search_call, "--shots", 1, "--json", "--quiet")
    assert outcome.json["task"]["shots"] == 1
    assert "skipped" in outcome.json["rivals"]["shots_1"]
    card = (tmp_path / "run" / "recipe" / "README.md").read_text()
    assert "Each prompt began with examples from the task's train split: 1 (seed 0)." in card


def test_shots_that_cannot_be_are_refused(
    refused: Any, search_call: list[object], tiny_folder: Path, facts: Path
) -> None:
    assert refused(*search_call, "--shots", -1, code=2) == "A prompt has 0 shots or more, not -1."
    assert "too few for 99 shots" in refused("eval", tiny_folder, "--task", facts, "--shots", 99)
