"""The run folder: what is in it, when it refuses, and what resuming demands."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from strop.anatomy import MatrixType, WeightSite
from strop.errors import RunError
from strop.interventions import RankReduction
from strop.recipe import Recipe
from strop.runs import (
    LOCK_FILE,
    BaseModel,
    BudgetUse,
    Cost,
    GuardReading,
    RunFolder,
    RunResult,
    TaskUsed,
    TrainedHead,
    describe_environment,
)
from strop.statistics import Comparison, Figures, spread_of

CONFIG = {"command": "search", "plan": {"seed": 0, "layers": (1, 2)}, "task": {"name": "facts"}}
RESULT = RunResult(
    command="search",
    seed=3,
    base_model=BaseModel("tiny", "0" * 32),
    task=TaskUsed("facts", {"select": 24, "test": 24}),
    base={"select": Figures(0.5, 1.0, 24), "test": Figures(0.25, 1.5, 24)},
    edited={"select": Figures(0.6, 0.9, 24), "test": Figures(0.5, 1.2, 24)},
    comparison={"test": Comparison(0.25, (0.1, 0.4), 0.01, fixed=7, broken=1)},
    interventions=(),
    cost=Cost(wall_seconds=1.5, evaluations=3, tokens=100, peak_rss_bytes=5),
    versions={"strop": "0.1.0"},
)
EVERYTHING = dataclasses.replace(
    RESULT,
    interventions=({"method": "rank_reduction", "layer": 1, "matrix_type": "up", "rank_fraction": 0.5, "rank": 16},),
    edits=("rank 16 of 32 in up of layer 1",),
    start={"select": Figures(0.5, 1.0, 24), "test": Figures(None, 2.0, 24, perplexity=7.4)},
    comparison={**RESULT.comparison, "test_over_start": Comparison(-0.1, (-0.2, 0.0), 0.5, fixed=0, broken=2)},
    cost=Cost(1.5, 3, 100, 5, gpu_seconds=2.5, peak_gpu_bytes=7),
    guards=(GuardReading("notes.txt", "perplexity", 20.0, 20.2, 0.01, 0.02, "share"),),
    base={"test": Figures(0.25, 1.5, 24, top5=0.5, top10=0.75)},
    edited={"test": Figures(0.25, 1.5, 24, metric=("f1", 0.4))},
    budget=BudgetUse(60.0, None, spent=True),
    metric="f1",
    head=TrainedHead(("no", "yes"), 66),
    categories=spread_of(np.zeros(4), np.array([1, 1, 0, 1]), categories=["a", "a", "b", "b"]),
)


def start(path: Path, *, resume: bool = False, **changes: Any) -> RunFolder:
    return RunFolder.start(path, {**CONFIG, **changes}, resume=resume)


def writer_of(recipe: Recipe) -> Callable[[Path], object]:
    return recipe.save


@pytest.fixture
def recipe(tiny: Callable[..., Any]) -> Recipe:
    return Recipe.of(tiny("llama"), [RankReduction(WeightSite(1, MatrixType.UP), 0.5)])


def test_a_run_has_its_config_and_environment_from_the_start(tmp_path: Path) -> None:
    run = start(tmp_path / "deep" / "run")
    assert sorted(file.name for file in run.path.iterdir()) == ["config.json", "environment.json", "log.txt"]
    assert json.loads((run.path / "config.json").read_text()) == {"run": run.id, **json.loads(json.dumps(CONFIG))}
    assert not run.finished
    assert run.study_url == f"sqlite:///{(run.path / 'study.db').absolute()}"


def test_the_environment_names_versions_and_machine(tmp_path: Path) -> None:
    RunFolder.start(tmp_path / "run", CONFIG, resume=False, compute={"torch_threads": 3})
    found = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert {"python", "strop", "torch", "transformers", "optuna"} <= set(found["versions"])
    assert found["cpu_count"] >= 1
    assert found["torch_threads"] == 3


def test_a_password_on_the_command_line_is_not_written_down(monkeypatch: pytest.MonkeyPatch) -> None:
    address = "postgresql+psycopg://me:s3cret/@x@db.example:5432/studies"
    monkeypatch.setattr(
        "sys.argv", ["/usr/bin/strop", "search", "--storage", address, "--storage=mysql://a:s3cret@h/d"]
    )
    command = describe_environment({})["command"]
    assert "s3cret" not in " ".join(command)
    assert command[-1] == "--storage=mysql://a:***@h/d"
    assert command[:3] == ["strop", "search", "--storage"]


def test_a_finished_run_holds_its_recipe_and_result(tmp_path: Path, recipe: Recipe) -> None:
    run = start(tmp_path / "run")
    run.finish(writer_of(recipe), RESULT)
    assert run.finished
    assert run.result() == RESULT
    assert Recipe.load(run.recipe_folder) == recipe
    assert json.loads((run.path / "result.json").read_text())["format"] == 1
    assert [line.split(" ")[1] for line in (run.path / "log.txt").read_text().splitlines()] == [
        "started",
        "finished",
    ]


def test_finishing_twice_replaces_what_was_there(tmp_path: Path, recipe: Recipe) -> None:
    run = start(tmp_path / "run")
    run.finish(writer_of(recipe), RESULT)
    other = dataclasses.replace(recipe, provenance={"seed": 9})
    run.finish(writer_of(other), dataclasses.replace(RESULT, seed=9))
    assert run.result().seed == 9
    assert Recipe.load(run.recipe_folder) == other


def test_a_recipe_that_cannot_be_written_leaves_the_run_unfinished(
    tmp_path: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    run = start(tmp_path / "run")
    monkeypatch.setattr("strop.recipe.files.write_text", refuse)
    with pytest.raises(OSError, match="No space left"):
        run.finish(writer_of(recipe), RESULT)
    assert not run.finished
    assert not (run.path / "recipe").exists()
    monkeypatch.undo()
    again = start(tmp_path / "run", resume=True)
    again.finish(writer_of(recipe), RESULT)
    assert again.finished


def test_a_folder_in_use_is_refused_and_says_how_far_it_is(tmp_path: Path, recipe: Recipe) -> None:
    run = start(tmp_path / "run")
    with pytest.raises(
        RunError, match="holds a run that was interrupted: go on with it by --resume, or choose another"
    ):
        start(tmp_path / "run")
    run.finish(writer_of(recipe), RESULT)
    with pytest.raises(RunError, match="holds a finished run: go on with it by --resume"):
        start(tmp_path / "run")


@pytest.mark.parametrize("resume", [False, True])
def test_what_is_no_run_is_left_alone(tmp_path: Path, resume: bool) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("precious")
    (tmp_path / "file").write_text("precious")
    for name in ("notes", "file"):
        with pytest.raises(RunError, match=f"{name} is there already and is not a run: choose another --out"):
            start(tmp_path / name, resume=resume)
    assert (tmp_path / "notes" / "mine.txt").read_text() == (tmp_path / "file").read_text() == "precious"
    assert len(list((tmp_path / "notes").iterdir())) == 1


@pytest.mark.parametrize("resume", [False, True])
def test_an_empty_or_absent_folder_begins_a_run(tmp_path: Path, resume: bool) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("empty", "absent"):
        assert not start(tmp_path / name, resume=resume).finished
        assert (tmp_path / name / "config.json").is_file()


def test_a_lock_is_no_content(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / LOCK_FILE).write_text("")
    assert not start(tmp_path / "run").finished


def test_a_run_that_never_got_as_far_as_a_trial_is_taken_away(tmp_path: Path) -> None:
    for name, kept in (("empty", False), ("begun", True)):
        run = start(tmp_path / name)
        if kept:
            (run.path / "study.db").write_text("")
        run.discard_if_empty()
        assert run.path.exists() == kept


def test_the_same_config_goes_on(tmp_path: Path) -> None:
    start(tmp_path / "run")
    start(tmp_path / "run", resume=True)
    assert [line.split(" ")[1] for line in (tmp_path / "run" / "log.txt").read_text().splitlines()] == [
        "started",
        "resumed",
    ]


def test_another_config_is_refused_by_its_first_difference(tmp_path: Path) -> None:
    start(tmp_path / "run")
    with pytest.raises(RunError) as raised:
        start(tmp_path / "run", resume=True, plan={"seed": 1, "layers": (1, 2)}, task={"name": "other"})
    message = str(raised.value)
    assert "run began with plan.seed = 0, and now it is 1" in message
    assert "resume with the same settings (this one is --seed), or choose another --out" in message
    assert "task" not in message
    with pytest.raises(RunError, match="began with task.name = 'facts', and now it is 'other'"):
        start(tmp_path / "run", resume=True, task={"name": "other"})
    with pytest.raises(RunError, match="began with extra = None, and now it is 7: resume with the same settings, or"):
        start(tmp_path / "run", resume=True, extra=7)


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", '"text"', "\x00"])
def test_a_damaged_config_cannot_be_resumed_and_is_named(tmp_path: Path, text: str) -> None:
    start(tmp_path / "run")
    (tmp_path / "run" / "config.json").write_text(text)
    with pytest.raises(RunError, match=r"config\.json .*so the run cannot be resumed"):
        start(tmp_path / "run", resume=True)


def test_a_run_that_failed_before_its_environment_was_written_can_be_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(compute: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("strop.runs.folder.describe_environment", refuse)
    with pytest.raises(OSError, match="No space left"):
        start(tmp_path / "run")
    monkeypatch.undo()
    start(tmp_path / "run", resume=True)
    assert (tmp_path / "run" / "environment.json").is_file()


@pytest.mark.parametrize("result", [RESULT, EVERYTHING], ids=["least", "everything"])
def test_a_result_survives_the_disk(tmp_path: Path, result: RunResult) -> None:
    (tmp_path / "result.json").write_text(json.dumps(result.to_json()))
    assert RunResult.read(tmp_path / "result.json") == result


def test_what_a_run_did_not_have_is_not_in_its_result() -> None:
    assert set(EVERYTHING.to_json()) - set(RESULT.to_json()) == {
        "start", "guards", "budget", "metric", "head", "categories",
    }  # fmt: skip


def test_a_result_written_before_edits_were_told_in_words_is_read(tmp_path: Path) -> None:
    content = {name: value for name, value in RESULT.to_json().items() if name != "edits"}
    (tmp_path / "result.json").write_text(json.dumps(content))
    assert RunResult.read(tmp_path / "result.json") == RESULT


@pytest.mark.parametrize(("harm", "holds"), [(0.01, True), (0.02, True), (0.021, False), (float("nan"), False)])
def test_a_guard_holds_up_to_its_bound_and_never_on_nan(harm: float, holds: bool) -> None:
    assert GuardReading("notes.txt", "perplexity", 20.0, 20.0, harm, 0.02, "share").holds == holds


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: "{",
        lambda content: "[]",
        lambda content: json.dumps({"format": 1}),
        lambda content: json.dumps({key: value for key, value in content.items() if key != "cost"}),
        lambda content: json.dumps({**content, "surprise": 1}),
        lambda content: json.dumps({key: value for key, value in content.items() if key != "format"}),
        lambda content: json.dumps({**content, "format": 2}),
    ],
)
def test_a_damaged_result_is_named(tmp_path: Path, damage: Callable[[dict[str, Any]], str]) -> None:
    path = tmp_path / "result.json"
    path.write_text(damage(RESULT.to_json()))
    with pytest.raises(RunError, match=r"result\.json is not a result of this version"):
        RunResult.read(path)


def test_a_missing_result_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"result\.json cannot be read: No such file"):
        RunResult.read(tmp_path / "result.json")


def test_a_run_that_was_begun_earlier_is_never_discarded(tmp_path: Path) -> None:
    config = {"command": "search"}
    run = RunFolder.start(tmp_path / "run", config, resume=False)
    (run.path / "checkpoints").mkdir()
    again = RunFolder.start(tmp_path / "run", config, resume=True)
    again.discard_if_empty()  # its trials may be in a database that cannot be reached just now
    assert (run.path / "config.json").is_file()
    run.discard_if_empty()
    assert not run.path.exists()
