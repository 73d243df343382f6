"""`strop sharpen`: what it prints, what it leaves, and what it says to a wrong call."""

import json
from pathlib import Path
from typing import Any

import pytest

from strop.recipe import Recipe

QUICK = ["--precondition", "sign", "--steps", "3", "--step", "0.05", "--drift", "5", "--examples", "8", "--no-rivals"]


@pytest.fixture
def call(tiny_folder: Path, even_facts: Path, tmp_path: Path) -> list[object]:
    return ["sharpen", tiny_folder, "--task", even_facts, "--out", tmp_path / "run"]


def test_a_person_gets_a_table_what_was_changed_its_price_and_a_next_command_that_works(
    strop_command: Any, call: list[object], tiny_folder: Path, tmp_path: Path
) -> None:
    outcome = strop_command(*call, *QUICK)
    assert outcome.code == 0, outcome.err
    for shown in ("held out (test)", "95 % interval", "singular values of ", " scaled in steps of ", "Price: drift "):
        assert shown in outcome.out
    assert "step 1, of 5.00%: " in outcome.err
    line = outcome.out.splitlines()[-1]
    gains = json.loads((tmp_path / "run" / "result.json").read_text())["comparison"]["test"]["ci95"][0] > 0
    expected = f"bake {tiny_folder} --recipe {tmp_path / 'run' / 'recipe'}" if gains else f"train {tiny_folder} --task "
    assert line.startswith(f"Next: strop {expected}")
    assert strop_command(*line.split()[2:], "--quiet").code == 0


def test_every_option_reaches_the_plan(strop_command: Any, call: list[object], tmp_path: Path) -> None:
    options = {
        "--drift": "4", "--precondition": "fisher", "--step": "0.01", "--steps": "2", "--examples": "6",
        "--matrix-types": "up,down", "--layers": "1-2", "--damping": "0.2", "--fisher-texts": "3", "--select-limit": "5",
        "--test-limit": "4", "--seed": "7",
    }  # fmt: skip
    outcome = strop_command(*call, *(word for option in options.items() for word in option), "--quiet", "--no-rivals")
    assert outcome.code == 0, outcome.err
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    kept = {name: config["plan"][name] for name in (
        "drift", "precondition", "step", "steps", "examples", "matrix_types", "layers", "damping", "fisher_texts",
        "select_limit", "test_limit", "seed",
    )}  # fmt: skip
    assert kept == {
        "drift": 4, "precondition": "fisher", "step": 0.01, "steps": 2, "examples": 6, "matrix_types": ["up", "down"],
        "layers": [1, 2], "damping": 0.2, "fisher_texts": 3, "select_limit": 5, "test_limit": 4, "seed": 7,
    }  # fmt: skip


def test_without_a_bound_no_guard_is_read(strop_command: Any, call: list[object]) -> None:
    outcome = strop_command(*call, *QUICK, "--drift", "0", "--json", "--quiet")
    assert outcome.code == 0, outcome.err
    assert not outcome.json.get("guards")


def test_the_bound_on_drift_stands_among_the_guards(strop_command: Any, call: list[object], tmp_path: Path) -> None:
    outcome = strop_command(*call, *QUICK, "--json", "--quiet")
    assert outcome.code == 0, outcome.err
    (guard,) = outcome.json["guards"]
    assert (guard["name"], guard["bound"], guard["bound_unit"]) == ("drift", 5, "nats")
    assert {entry.method for entry in Recipe.load(tmp_path / "run" / "recipe").interventions} == {"spectrum"}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--step", "0"], "step (--step) is the share by which a singular value changes, above 0 and at most 0.5, not 0"),
        (["--drift", "-1"], "drift (--drift) is above 0, in nats per token, not -1"),
        (["--examples", "0"], "examples is 1 or more, not 0"),
        (["--matrix-types", "upp"], "--matrix-types"),
        (["--layers", "9"], "layers 0 to 2"),
    ],
)  # fmt: skip
def test_a_wrong_call_is_one_sentence_and_leaves_nothing(
    refused: Any, call: list[object], tmp_path: Path, options: list[str], said: str
) -> None:
    assert said in refused(*call, *options, code=2)
    assert not (tmp_path / "run").exists()
