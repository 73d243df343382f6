"""A search that begins with a recipe: it is kept, it comes first, and the gain over it is told."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.fixtures.runs import figures_of, state_of

import strop
from strop.anatomy import MatrixType
from strop.errors import RunError
from strop.interventions import RankReduction
from strop.proving import RunOptions, Trial
from strop.recipe import Recipe
from strop.runs import RunResult
from strop.searching import SearchPlan, search
from strop.tasks import Task

PLAN = SearchPlan(
    strategy="exhaustive", layers=(0, 1), rank_fractions=(0.1, 0.5), matrix_types=(MatrixType.UP, MatrixType.KEY)
)


def test_a_search_begins_with_the_recipe_it_is_given(
    answering: Callable[..., Any], small_tokenizer: Any, task: Task, laser: Recipe, tmp_path: Path
) -> None:
    model = answering()
    before = state_of(model)
    found = search(model, small_tokenizer, task, PLAN, RunOptions(after=laser, out=tmp_path / "run"))
    assert state_of(model) == before
    assert [trial.key.method for trial in found.trials[:2]] == ["base", "start"]
    assert found.recipe.interventions[:2] == laser.interventions
    assert len(found.recipe.interventions) == 3
    result = RunResult.read(tmp_path / "run" / "result.json")
    assert result == found.result
    assert set(result.comparison) == {"test", "test_over_start"}
    recipe = strop.Recipe.load(tmp_path / "run" / "recipe")
    for split in ("select", "test"):
        plain = strop.evaluate(model, small_tokenizer, task, split=split)
        with strop.applied(model, laser):
            started = strop.evaluate(model, small_tokenizer, task, split=split)
        with strop.applied(model, recipe):
            edited = strop.evaluate(model, small_tokenizer, task, split=split)
        for figures, measured in ((result.base, plain), (result.start, started), (result.edited, edited)):
            assert figures[split].loss == pytest.approx(measured.mean_loss, rel=1e-4)
            assert figures[split].accuracy == measured.accuracy
    gains = (edited.accuracy - plain.accuracy, edited.accuracy - started.accuracy)
    assert (result.comparison["test"].gain, result.comparison["test_over_start"].gain) == pytest.approx(gains)
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert [entry["layer"] for entry in config["plan"]["after"]] == [2, 1]


def test_each_trial_scores_its_edit_on_top_of_the_start(
    answering: Callable[..., Any], small_tokenizer: Any, task: Task, laser: Recipe
) -> None:
    """As the same edits do together on the bare model."""
    model = answering()
    found = search(model, small_tokenizer, task, PLAN, RunOptions(after=laser))
    for trial in found.trials[2:]:
        edit = RankReduction(
            strop.WeightSite.from_json(trial.key.candidate), float(trial.key.candidate["rank_fraction"])
        )
        with strop.applied(model, Recipe.of(model, [*laser.interventions, edit])):
            whole = strop.evaluate(model, small_tokenizer, task, split="select")
        assert trial.loss == pytest.approx(whole.mean_loss, rel=1e-4)


def test_where_nothing_helps_further_the_start_is_the_answer_and_is_measured_once(
    answering: Callable[..., Any], small_tokenizer: Any, task: Task, laser: Recipe
) -> None:
    model = answering()
    with torch.no_grad():
        for block in model.model.layers[:2]:  # what a block adds is nothing, so no edit of it changes anything
            block.self_attn.o_proj.weight.zero_()
            block.mlp.down_proj.weight.zero_()
    start = Recipe.of(model, laser.interventions[:1])
    found = search(model, small_tokenizer, task, PLAN, RunOptions(after=start))
    assert found.recipe.interventions == start.interventions
    assert found.result.edited == found.result.start
    assert found.result.start != found.result.base
    assert found.result.comparison["test_over_start"].gain == 0
    assert found.result.cost.evaluations == len(found.trials) + 2


def test_a_recipe_of_no_edits_is_begun_with_as_if_it_were_not_there(
    answering: Callable[..., Any], small_tokenizer: Any, task: Task
) -> None:
    model = answering()
    found = search(model, small_tokenizer, task, PLAN, RunOptions(after=Recipe.of(model, [])))
    without = search(model, small_tokenizer, task, PLAN)
    assert figures_of(found) == figures_of(without)
    assert found.result.start == {}
    assert found.recipe.interventions == without.recipe.interventions


def test_a_search_after_a_recipe_that_was_interrupted_goes_on_with_the_same_recipe_only(
    answering: Callable[..., Any],
    small_tokenizer: Any,
    task: Task,
    laser: Recipe,
    tmp_path: Path,
    finished_trials: Callable[..., list[Trial]],
) -> None:
    finished = finished_trials(4)
    with pytest.raises(KeyboardInterrupt):
        search(answering(), small_tokenizer, task, PLAN, RunOptions(after=laser, out=tmp_path / "run"))
    with pytest.raises(RunError, match=r"began with plan\.after = \[\{.*, and now it is None: resume with"):
        search(answering(), small_tokenizer, task, PLAN, RunOptions(out=tmp_path / "run", resume=True))
    again = search(answering(), small_tokenizer, task, PLAN, RunOptions(after=laser, out=tmp_path / "run", resume=True))
    assert len({trial.key for trial in finished}) == len(finished) == len(again.trials)
    whole = search(answering(), small_tokenizer, task, PLAN, RunOptions(after=laser))
    assert (figures_of(again), again.recipe) == (figures_of(whole), whole.recipe)
