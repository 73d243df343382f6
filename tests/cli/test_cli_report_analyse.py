"""`strop report --analyse`: the model is asked once what a page shows only then, and the run keeps it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.fixtures.results import result_of
from tests.fixtures.task_files import WriteTask

import strop
from strop.anatomy import MatrixType, WeightSite
from strop.files import write_json
from strop.findings import read_paraphrases, read_removed
from strop.interventions import RankReduction
from strop.recipe import Recipe
from strop.runs import TaskUsed
from strop.statistics import Figures

ROWS = [
    {"prompt": f"The city of {name}{number} is in", "answer": answer, "others": [f"{name}{number} lies in"]}
    for number in range(6)
    for name, answer in (("Lyon", " France"), ("Curitiba", " Brazil"))
]
SITES = (WeightSite(1, MatrixType.UP), WeightSite(2, MatrixType.DOWN))


@pytest.fixture
def worded(write_task: WriteTask) -> Path:
    return write_task(ROWS, name="worded", paraphrases="others")


@pytest.fixture
def run(tiny_folder: Path, worded: Path, tmp_path: Path) -> Path:
    """A finished run that reduced two matrices of the tiny model."""
    model, _ = strop.load(tiny_folder)
    task = strop.load_task(worded)
    figures = Figures(0.0, 6.0, len(task.examples("test")))
    folder = tmp_path / "cut"
    folder.mkdir()
    used = TaskUsed("worded", {"select": 2, "test": figures.count})
    result = result_of(
        task=used, base={"select": figures, "test": figures}, edited={"select": figures, "test": figures}
    )
    write_json(folder / "result.json", result.to_json())
    config = {"run": "1", "command": "search", "task": {"name": "worded", "fingerprint": task.fingerprint}}
    write_json(folder / "config.json", config)
    cuts = [RankReduction(site, share) for site, share in zip(SITES, (0.5, 0.25), strict=True)]
    Recipe.of(model, cuts).save(folder / "recipe")
    return folder


def test_a_model_is_asked_in_other_words_and_of_the_matrix_that_was_reduced_most(
    strop_command: Callable[..., Any], run: Path, worded: Path, tmp_path: Path
) -> None:
    out = tmp_path / "report.md"
    outcome = strop_command("report", run, "--analyse", "--task", worded, "--out", out)
    assert outcome.code == 0, outcome.err
    removed, facts = read_removed(run), read_paraphrases(run)
    assert removed is not None
    assert removed.matrix == str(SITES[1])
    test = strop.load_task(worded).examples("test")
    assert [own.row for own in facts] == [example.row for example in test]
    text = out.read_text(encoding="utf-8")
    assert "### In other words" in text
    assert "### What the removed components say" in text
    again = strop_command("report", run, "--out", out, "--force", "--json")  # no model, and still all of it
    assert "left_out" not in again.json
    assert out.read_text(encoding="utf-8") == text


def test_what_does_not_fit_is_left_out_and_said_before_a_model_is_loaded(
    strop_command: Callable[..., Any], run: Path, worded: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    model, _ = strop.load(tiny_folder)
    for file in (run / "recipe").iterdir():
        file.unlink()
    Recipe.of(model, []).write_files(run / "recipe")
    call = ("report", run, "--analyse", "--task", worded, "--out", tmp_path / "report.md", "--json", "--quiet")
    outcome = strop_command(*call, "--model", tmp_path / "nowhere")
    assert outcome.json["left_out"] == [f"{run}: The run edits nothing, so there is nothing to ask a model about."]


def test_wrong_calls_are_told(
    refused: Callable[..., str], run: Path, worded: Path, write_task: WriteTask, tmp_path: Path
) -> None:
    assert refused("report", run, "--task", worded, code=2) == (
        "--task is for --analyse, which asks a model: add it, or leave --task out."
    )
    assert refused("report", run, "--analyse", code=2) == (
        f"{run} is about worded, whose file it does not hold: name the file with --task."
    )
    other = write_task(ROWS[:8], file="fewer.jsonl", name="worded", paraphrases="others")
    assert refused("report", run, "--analyse", "--task", other, code=2) == (
        f"{run} was measured on other examples than task worded has: name its own file with --task."
    )
    (run / "result.json").unlink()
    (run / "config.json").write_text(json.dumps({"run": "1"}), encoding="utf-8")
    assert "is not finished" in refused("report", run, "--analyse", "--task", worded)
