"""What every run takes, and what it refuses before anything else."""

from collections.abc import Callable
from typing import Any

import pytest

from strop.anatomy import MatrixType, WeightSite
from strop.errors import BaseMismatchError, InterventionError, UsageError
from strop.interventions import RankReduction, applied_interventions
from strop.proving import Assignment, RunOptions, Start
from strop.recipe import Recipe
from strop.tasks import Task

UP = RankReduction(WeightSite(1, MatrixType.UP), 0.5)


def test_resuming_needs_a_folder() -> None:
    with pytest.raises(UsageError, match="Only a run with a folder can be resumed"):
        RunOptions(resume=True)


def test_a_model_with_something_attached_is_refused(
    answering: Callable[..., Any], small_tokenizer: Any, task: Task
) -> None:
    model = answering()
    with (
        applied_interventions(model, [UP]),
        pytest.raises(InterventionError, match="attached to this model already; detach it first"),
    ):
        Assignment.of(model, small_tokenizer, task, RunOptions())


def test_a_recipe_for_another_model_is_no_start(
    answering: Callable[..., Any], small_tokenizer: Any, task: Task, laser: Recipe
) -> None:
    other = answering("llama", intermediate_size=64)
    with pytest.raises(BaseMismatchError, match="not the matrix the recipe was made for"):
        Assignment.of(other, small_tokenizer, task, RunOptions(after=laser))


def test_a_start_is_what_its_recipe_holds_and_nothing_without_one(laser: Recipe) -> None:
    assert not Start.of(None)
    start = Start.of(laser)
    assert start
    assert start.interventions == laser.interventions
    further = start.then([UP])
    assert further.interventions == (*laser.interventions, UP)
    assert len(further.tensors) == len(further.interventions)
    assert start.interventions == laser.interventions
