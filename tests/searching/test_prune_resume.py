"""A pruning that was interrupted goes on to the same answer and repeats nothing."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import strop
from strop.anatomy import MatrixType, WeightSite
from strop.interventions import RankReduction, SingularValuePruning
from strop.progress import Progress
from strop.recipe import Recipe
from strop.runs import RunOutcome, Trial, TrialBook
from strop.scoring import Scorer
from strop.searching import PrunePlan, prune
from strop.tasks import Task

QUICK = PrunePlan(fractions=(0.02, 0.05, 0.1), iterate=3, patience=3)
A_ROUND = 5
"""Its trials: three screened on train, two of them scored on select."""


def figures(found: RunOutcome) -> dict[str, Any]:
    content = found.result.to_json()
    cost = {key: value for key, value in content["cost"].items() if key not in ("wall_seconds", "peak_rss_bytes")}
    return {**content, "cost": cost}


def key_of(trial: Trial[Any]) -> Any:
    return (trial.round, trial.split, trial.examples, trial.candidate)


def without_clock(found: RunOutcome) -> list[Trial[Any]]:
    return sorted((dataclasses.replace(t, elapsed_seconds=0) for t in found.trials), key=lambda t: str(key_of(t)))


@pytest.fixture
def interrupted_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], list[Trial[Any]]]:
    """Interrupt whatever adds trials once it has added so many; return the list of all that are ever added."""

    def arm(stop: int) -> list[Trial[Any]]:
        added: list[Trial[Any]] = []
        real = TrialBook.add

        def adding(self: TrialBook[Any], trial: Trial[Any]) -> None:
            real(self, trial)
            added.append(trial)
            if len(added) == stop:
                raise KeyboardInterrupt

        monkeypatch.setattr(TrialBook, "add", adding)
        return added

    return arm


@pytest.mark.parametrize(
    ("bias", "stop"),
    [
        ("none", 1),
        ("mean", 3),
        ("position", 5),
        ("none", 1 + A_ROUND),
        ("position", 3 + A_ROUND),
        ("mean", 2 + 2 * A_ROUND),
    ],
)
def test_a_pruning_interrupted_after_any_trial_goes_on_and_repeats_none(
    answering: Callable[..., Any],
    small_tokenizer: Any,
    even: Task,
    tmp_path: Path,
    interrupted_at: Any,
    monkeypatch: pytest.MonkeyPatch,
    bias: Any,
    stop: int,
) -> None:
    plan = dataclasses.replace(QUICK, bias=bias)
    added = interrupted_at(stop)
    with pytest.raises(KeyboardInterrupt):
        prune(answering(), small_tokenizer, even, plan, out=tmp_path / "run")
    assert not (tmp_path / "run" / "result.json").exists()
    again = prune(answering(), small_tokenizer, even, plan, out=tmp_path / "run", resume=True)
    assert len(set(map(key_of, added))) == len(added) == len(again.trials)
    monkeypatch.undo()
    whole = prune(answering(), small_tokenizer, even, plan)
    assert max(trial.round for trial in whole.trials) == 3
    assert whole.recipe.interventions
    assert without_clock(again) == without_clock(whole)
    assert figures(again) == figures(whole)
    assert again.recipe == whole.recipe
    assert again.result.cost["wall_seconds"] >= added[stop - 1].elapsed_seconds


@pytest.mark.parametrize("bias", ["position"])
def test_a_pruning_interrupted_while_it_asks_the_gradient_goes_on(
    answering: Callable[..., Any], small_tokenizer: Any, even: Task, tmp_path: Path, bias: Any
) -> None:
    class Interrupting(Progress):
        def start(self, stage: str, total: int) -> None:
            if stage == "round 2: asking the gradient":
                raise KeyboardInterrupt

    plan = dataclasses.replace(QUICK, bias=bias)
    with pytest.raises(KeyboardInterrupt):
        prune(answering(), small_tokenizer, even, plan, out=tmp_path / "run", progress=Interrupting())
    asked: list[str] = []

    class Watching(Progress):
        def start(self, stage: str, total: int) -> None:
            asked.append(stage)

    again = prune(answering(), small_tokenizer, even, plan, out=tmp_path / "run", resume=True, progress=Watching())
    assert not any(stage.startswith("round 1:") for stage in asked)  # not even the gradient
    whole = prune(answering(), small_tokenizer, even, plan)
    assert (figures(again), again.recipe) == (figures(whole), whole.recipe)


@pytest.mark.parametrize("stop", [1, 4 + A_ROUND])
def test_a_pruning_after_a_recipe_goes_on_too(
    answering: Callable[..., Any],
    small_tokenizer: Any,
    task: Task,
    tmp_path: Path,
    interrupted_at: Any,
    monkeypatch: pytest.MonkeyPatch,
    stop: int,
) -> None:
    model = answering()
    after = Recipe.of(model, [RankReduction(WeightSite(1, MatrixType.UP), 0.25)])
    added = interrupted_at(stop)
    with pytest.raises(KeyboardInterrupt):
        prune(model, small_tokenizer, task, QUICK, after=after, out=tmp_path / "run")
    again = prune(model, small_tokenizer, task, QUICK, after=after, out=tmp_path / "run", resume=True)
    assert len(set(map(key_of, added))) == len(added) == len(again.trials)
    monkeypatch.undo()
    whole = prune(model, small_tokenizer, task, QUICK, after=after)
    assert (figures(again), again.recipe) == (figures(whole), whole.recipe)
    with pytest.raises(strop.StropError, match=r"began with plan\.after = \[\{.*, and now it is None: resume with"):
        prune(model, small_tokenizer, task, QUICK, out=tmp_path / "run", resume=True)


def test_a_recipe_that_carries_other_tensors_is_another_to_begin_with(
    answering: Callable[..., Any], small_tokenizer: Any, task: Task, tmp_path: Path, interrupted_at: Any
) -> None:
    model = answering()
    edits = [SingularValuePruning(WeightSite(1, MatrixType.UP), (3,), bias="mean")]
    first, second = (Recipe.of(model, edits, tensors=[{"bias": torch.full((48,), share)}]) for share in (0.01, 0.02))
    interrupted_at(2)
    with pytest.raises(KeyboardInterrupt):
        prune(model, small_tokenizer, task, QUICK, after=first, out=tmp_path / "run")
    with pytest.raises(strop.StropError, match=r"began with plan\.after = .* resume with the same"):
        prune(model, small_tokenizer, task, QUICK, after=second, out=tmp_path / "run", resume=True)


def test_where_nothing_was_written_the_end_is_reached_from_the_study_alone(
    answering: Callable[..., Any], small_tokenizer: Any, task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the test split is scored anew, and no gradient asked for: the rounds are in the study."""
    first = prune(answering(), small_tokenizer, task, QUICK, out=tmp_path / "run")
    (tmp_path / "run" / "result.json").unlink()
    real, scored = Scorer.evaluate, []

    def watched(self: Scorer, **arguments: Any) -> Any:
        scored.append(self.example_count)
        return real(self, **arguments)

    monkeypatch.setattr(Scorer, "evaluate", watched)
    monkeypatch.setattr("strop.searching.pruner.measure_effects", lambda *_, **__: pytest.fail("asked again"))
    again = prune(answering(), small_tokenizer, task, QUICK, out=tmp_path / "run", resume=True)
    assert scored == [24, 24]  # the base and the edited model, on test
    assert (figures(again), again.recipe) == (figures(first), first.recipe)


def test_a_finished_run_is_read_back(
    answering: Callable[..., Any], small_tokenizer: Any, even: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = dataclasses.replace(QUICK, bias="mean")
    found = prune(answering(), small_tokenizer, even, plan, out=tmp_path / "run")
    monkeypatch.setattr(Scorer, "evaluate", lambda *_, **__: pytest.fail("something was scored again"))
    again = prune(answering(), small_tokenizer, even, plan, out=tmp_path / "run", resume=True)
    assert again.result == found.result
    assert again.recipe == found.recipe
    for mine, theirs in zip(again.recipe.tensors, found.recipe.tensors, strict=True):
        assert torch.equal(mine["bias"], theirs["bias"])


def test_other_settings_are_refused_with_the_first_that_differs(
    answering: Callable[..., Any], small_tokenizer: Any, task: Task, tmp_path: Path, interrupted_at: Any
) -> None:
    interrupted_at(2)
    with pytest.raises(KeyboardInterrupt):
        prune(answering(), small_tokenizer, task, QUICK, out=tmp_path / "run")
    cases: list[tuple[dict[str, Any], str]] = [
        ({"bias": "mean"}, r"plan\.bias = 'none', and now it is 'mean'"),
        ({"seed": 1, "bias": "mean"}, r"plan\.bias = 'none', and now it is 'mean'"),
        ({"fractions": (0.02,)}, r"plan\.fractions = \[0\.02, 0\.05, 0\.1\], and now it is \[0\.02\]"),
        ({"scopes": ("per-type",)}, r"plan\.scopes = \['global'\], and now it is \['per-type'\]"),
    ]
    for settings, said in cases:
        other = dataclasses.replace(QUICK, **settings)
        with pytest.raises(strop.StropError, match=rf"began with {said}: resume with the same settings"):
            prune(answering(), small_tokenizer, task, other, out=tmp_path / "run", resume=True)
    with pytest.raises(strop.StropError, match="holds a run that was interrupted: go on with it by --resume"):
        prune(answering(), small_tokenizer, task, QUICK, out=tmp_path / "run")


def test_a_pruning_is_not_a_search_gone_on_with(
    answering: Callable[..., Any], small_tokenizer: Any, task: Task, tmp_path: Path
) -> None:
    prune(answering(), small_tokenizer, task, QUICK, out=tmp_path / "run")
    with pytest.raises(strop.StropError, match="began with command = 'prune', and now it is 'search'"):
        strop.search(answering(), small_tokenizer, task, out=tmp_path / "run", resume=True)


def test_the_same_settings_write_the_same_twice(
    answering: Callable[..., Any], small_tokenizer: Any, even: Task, tmp_path: Path
) -> None:
    plan = dataclasses.replace(QUICK, bias="position", select_limit=8, test_limit=9, counterfactual="roll")
    found = [prune(answering(), small_tokenizer, even, plan, out=tmp_path / name) for name in ("one", "two")]
    assert figures(found[0]) == figures(found[1])
    assert found[0].result.task["counts"] == {"select": 8, "test": 9}
    one, two = ((tmp_path / name / "recipe" / "recipe.json").read_text() for name in ("one", "two"))
    assert one == two
    logs = [(tmp_path / name / "log.txt").read_text().splitlines() for name in ("one", "two")]
    assert [line.split(" ", 1)[1] for line in logs[0]] == [line.split(" ", 1)[1] for line in logs[1]]
    assert json.loads((tmp_path / "one" / "config.json").read_text())["command"] == "prune"
