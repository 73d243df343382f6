"""`--show-changes`: which answers became right or wrong, for a person and in JSON, wherever two models are scored."""

from pathlib import Path
from typing import Any

import pytest

import strop
from strop.anatomy import MatrixType, WeightSite
from strop.interventions import RankReduction
from strop.recipe import Recipe

MATRICES = [RankReduction(WeightSite(layer, MatrixType.VALUE), 0.0) for layer in (0, 1, 2)]


@pytest.fixture
def known(knowing: Any, small_tokenizer: Any, tmp_path: Path) -> Path:
    """A checkpoint that knows the small facts."""
    folder = tmp_path / "knowing"
    knowing().save_pretrained(folder)
    small_tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def recipes(known: Path, tmp_path: Path) -> list[Path]:
    """A recipe that makes it forget, and one that changes nothing."""
    model, _ = strop.load(known)
    made = {"forgets": MATRICES, "same": []}
    return [Recipe.of(model, edits).save(tmp_path / name) for name, edits in made.items()]


def test_eval_shows_what_a_recipe_broke(strop_command: Any, known: Path, recipes: list[Path], facts: Path) -> None:
    call = ["eval", known, "-t", facts, "--recipe", recipes[0], "--show-changes", 2]
    found = strop_command(*call, "--json").json
    assert found["changed"]["broken_count"] == found["comparison"]["broken"] > 2
    assert found["changed"]["fixed_count"] == found["comparison"]["fixed"]
    (first, second) = found["changed"]["broken"]
    assert first["before"].startswith(first["wanted"])
    assert not second["after"].startswith(second["wanted"])
    out = strop_command(*call).out
    assert f"Broken: {found['comparison']['broken']}, of which 2:" in out
    assert f"    wanted: {first['wanted']}" in out


def test_compare_shows_where_b_differs_from_a(
    strop_command: Any, known: Path, recipes: list[Path], facts: Path
) -> None:
    call = ["compare", *recipes, "--task", facts, "--show-changes", 1]
    found = strop_command(*call, "--json").json
    changed = found["changed"]["b_over_a"]
    assert changed["fixed_count"] == found["comparison"]["b_over_a"]["fixed"] > 0
    assert changed["fixed"][0]["after"].startswith(changed["fixed"][0]["wanted"])
    out = strop_command(*call).out
    assert "    A:      " in out
    assert "    B:      " in out


def test_a_run_shows_what_it_changed(
    strop_command: Any, tiny_folder: Path, facts: Path, quick: list[str], tmp_path: Path
) -> None:
    call = ["search", tiny_folder, "-t", facts, "--out", tmp_path / "run", *quick, "--show-changes", 3]
    first = strop_command(*call, "--json", "--quiet").json
    assert first["changed"]["fixed_count"] == first["comparison"]["test"]["fixed"]
    assert len(first["changed"]["fixed"]) == min(3, first["changed"]["fixed_count"])
    again = strop_command(*call, "--resume", "--quiet")
    assert again.code == 0
    assert (
        "A finished run asks nothing again: strop report shows the answers it kept, strop eval --show-changes new ones."
        in again.out
    )
    page = f"As a page: strop report {tmp_path / 'run'} --out {tmp_path / 'run' / 'report.html'}"
    assert again.out.splitlines()[-2] == page
    assert strop_command("report", tmp_path / "run", "--out", tmp_path / "report.md").code == 0
    told = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert f"**Fixed: {first['changed']['fixed_count']}" in told
    assert "### Sweep" in told
    assert "### What is missing" not in told


def test_changes_of_nothing_are_refused(refused: Any, known: Path, recipes: list[Path], facts: Path) -> None:
    said = refused("eval", known, "-t", facts, "--show-changes", "2", code=2)
    assert said == "--show-changes is about what a recipe changes; give one with --recipe."
    said = refused("eval", known, "-t", facts, "--recipe", recipes[0], "--show-changes", "0", code=2)
    assert "(--show-changes) is 1 or more, not 0" in said
    said = refused("compare", *recipes, "--show-changes", "2", code=2)
    assert said.startswith("--show-changes is about scoring afresh; give a task")
    facts.write_text(facts.read_text() + "score: perplexity\n")
    said = refused("eval", known, "-t", facts, "--recipe", recipes[0], "--show-changes", "2", code=2)
    assert "is scored by loss alone" in said
