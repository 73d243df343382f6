"""A pruning that begins with another recipe."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.fixtures.runs import assert_figures_are_those_of, evaluated, state_of

import strop
from strop.anatomy import MatrixType
from strop.interventions import SingularValuePruning
from strop.proving import RunOptions
from strop.recipe import Recipe
from strop.runs import RunResult
from strop.searching import PrunePlan
from strop.searching.eigenpruning import prune
from strop.tasks import Task

T = MatrixType
QUICK = PrunePlan(fractions=(0.02, 0.05, 0.1), iterate=2)
COMPONENTS = 576
"""Of the tiny Llama: 3 layers of 32 in each head's eight, or each of the three MLP matrices' 32."""


@pytest.mark.parametrize("bias", ["none", "mean"])
def test_a_pruning_begins_with_the_recipe_it_is_given(
    answering: Callable[..., Any], small_tokenizer: Any, task: Task, laser: Recipe, tmp_path: Path, bias: Any
) -> None:
    model = answering()
    before = state_of(model)
    plan = dataclasses.replace(QUICK, bias=bias)
    found = prune(
        model,
        small_tokenizer,
        task,
        plan,
        options=RunOptions(after=laser, out=tmp_path / "run", with_factors=True),
    )
    assert state_of(model) == before
    edits = found.recipe.interventions
    assert edits[:2] == laser.interventions
    assert len(edits) > 2
    assert all(isinstance(edit, SingularValuePruning) for edit in edits[2:])
    result = RunResult.read(tmp_path / "run" / "result.json")
    assert result == found.result
    assert set(result.comparison) == {"test", "test_over_start"}
    assert [entry["method"] for entry in result.interventions[:2]] == ["rank_reduction"] * 2
    for split in ("select", "test"):
        plain = strop.evaluate(model, small_tokenizer, task, split=split)
        assert_figures_are_those_of(plain, result.base[split])
        assert_figures_are_those_of(evaluated(model, small_tokenizer, laser, task, split), result.start[split])
    recipe = strop.Recipe.load(tmp_path / "run" / "recipe")
    edited = evaluated(model, small_tokenizer, recipe, task)
    assert_figures_are_those_of(edited, result.edited["test"])
    start, base = (figures["test"].accuracy for figures in (result.start, result.base))
    assert result.comparison["test"].gain == pytest.approx(edited.accuracy - base)
    assert result.comparison["test_over_start"].gain == pytest.approx(edited.accuracy - start)
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert [entry["layer"] for entry in config["plan"]["after"]] == [2, 1]


def test_where_pruning_adds_nothing_the_recipe_it_began_with_is_the_answer(
    answering: Callable[..., Any], small_tokenizer: Any, task: Task, laser: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "strop.searching.eigenpruning.pruner.removal_by", lambda step, effects, removed, **_: dict(removed)
    )
    found = prune(answering(), small_tokenizer, task, QUICK, options=RunOptions(after=laser))
    assert found.recipe.interventions == laser.interventions
    assert found.result.edited == found.result.start
    assert found.result.comparison["test_over_start"].gain == 0


def test_a_recipe_with_biases_can_be_begun_with(
    answering: Callable[..., Any], small_tokenizer: Any, even: Task
) -> None:
    model = answering()
    first = prune(model, small_tokenizer, even, PrunePlan(bias="position", fractions=(0.1,), iterate=1)).recipe
    found = prune(
        model,
        small_tokenizer,
        even,
        dataclasses.replace(QUICK, bias="mean", steps=2),
        options=RunOptions(after=first),
    )
    count = len(first.interventions)
    assert found.recipe.interventions[:count] == first.interventions
    assert all(torch.equal(a["bias"], b["bias"]) for a, b in zip(found.recipe.tensors, first.tensors, strict=False))
    assert_figures_are_those_of(evaluated(model, small_tokenizer, found.recipe, even), found.result.edited["test"])
