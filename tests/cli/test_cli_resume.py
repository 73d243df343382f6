"""A run that is resumed with another setting is refused by the name of its option, and every such option is there."""

import inspect
from pathlib import Path
from typing import Any

import pytest
import typer.main

from strop.cli.app import app
from strop.runs.folder import OPTIONS
from strop.searching import PrunePlan, SearchPlan, SharpenPlan
from strop.training import TrainPlan


@pytest.mark.parametrize(
    ("command", "plan"),
    [("search", SearchPlan()), ("prune", PrunePlan()), ("sharpen", SharpenPlan()), ("train", TrainPlan())],
)
def test_the_option_of_every_setting_is_one_of_the_commands(command: str, plan: Any) -> None:
    found = typer.main.get_command(app).commands[command]  # type: ignore[attr-defined]
    there = {name for parameter in found.params for name in parameter.opts}
    settings = {*inspect.signature(type(plan)).parameters, "after", "guards", "drift_text"}
    named = {OPTIONS.get(name, f"--{name.replace('_', '-')}") for name in settings} - {None}
    assert named <= there


def test_the_refusal_names_the_option(tiny_folder: Path, even_facts: Path, strop_command: Any, tmp_path: Path) -> None:
    call = ["sharpen", tiny_folder, "--task", even_facts, "--out", tmp_path / "run", "--examples", "4", "--no-rivals"]
    assert strop_command(*call, "--steps", "1", "--precondition", "sign", "--quiet").code == 0
    (tmp_path / "run" / "result.json").unlink()
    outcome = strop_command(*call, "--steps", "1", "--precondition", "sign", "--drift", "0.5", "--resume", "--quiet")
    assert outcome.code != 0
    said = "began with plan.drift = 0.03, and now it is 0.5: resume with the same settings (this one is --drift), or"
    assert said in " ".join(outcome.err.split())
