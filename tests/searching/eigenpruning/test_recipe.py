"""What a pruning leaves: a run, a recipe that scores what the result says, a checkpoint."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.fixtures.runs import assert_figures_are_those_of, evaluated, state_of

import strop
from strop.anatomy import MatrixType
from strop.errors import InterventionError
from strop.export import bake
from strop.interventions import SingularValuePruning, attachments_of
from strop.linalg import DecompositionCache
from strop.proving import RunOptions
from strop.searching import PrunePlan
from strop.searching.eigenpruning import prune
from strop.tasks import Task, load_task

T = MatrixType
QUICK = PrunePlan(fractions=(0.02, 0.05, 0.1), iterate=2)
COMPONENTS = 576
"""Of the tiny Llama: 3 layers of 32 in each head's eight, or each of the three MLP matrices' 32."""


def test_a_run_holds_what_the_contract_says(
    answering: Callable[..., Any], small_tokenizer: Any, task: Task, tmp_path: Path
) -> None:
    found = prune(answering(), small_tokenizer, task, QUICK, options=RunOptions(out=tmp_path / "run"))
    run = tmp_path / "run"
    names = {file.name for file in run.iterdir()}
    kept = {"answers.jsonl", *(["spectra.json"] if found.recipe.interventions else [])}
    assert names == {"config.json", "environment.json", "study.db", "result.json", "recipe", "log.txt", *kept}
    result = json.loads((run / "result.json").read_text())
    assert result == found.result.to_json()
    assert (result["format"], result["command"], result["seed"]) == (1, "prune", 0)
    assert result["task"] == {"name": "small-facts", "counts": {"select": 24, "test": 24}}
    assert "start" not in result
    assert set(result["comparison"]) == {"test"}
    assert set(result["comparison"]["test"]) == {"gain", "ci95", "p_value", "fixed", "broken"}
    for entry in result["interventions"]:
        assert set(entry) - {"head"} == {
            "method", "layer", "matrix_type", "removed", "removed_count", "full_rank", "bias",
        }  # fmt: skip
        assert entry["full_rank"] == (8 if "head" in entry else 32)
    document = json.loads((run / "recipe" / "recipe.json").read_text())
    assert document["interventions"] == result["interventions"]
    assert document["provenance"]["command"] == "prune"
    assert document["provenance"]["plan"]["fractions"] == [0.02, 0.05, 0.1]
    config = json.loads((run / "config.json").read_text())
    assert config["plan"]["after"] is None
    assert found.fixed_indices() == [
        i
        for i, (b, a) in enumerate(zip(*(e.correct for e in found.test_evaluations or ()), strict=True))
        if a and not b
    ]


def test_hundreds_of_prunings_are_told_in_few_lines(
    tiny: Callable[..., Any], small_tokenizer: Any, task: Task, tmp_path: Path
) -> None:
    model = tiny("llama", num_hidden_layers=9, num_attention_heads=8, num_key_value_heads=4)
    plan = PrunePlan(fractions=(0.4,), iterate=3, allow_harmful=True, scopes=("per-matrix",))
    found = prune(model, small_tokenizer, task, plan, options=RunOptions(out=tmp_path / "run"))
    assert len(found.recipe.interventions) > 200
    assert len(found.result.edits) == 7
    assert len(str(found).splitlines()) <= 4
    card = (tmp_path / "run" / "recipe" / "README.md").read_text()
    assert len(card.splitlines()) < 50
    assert "singular values removed in 9 layers" in card


def test_a_baked_checkpoint_with_mean_biases_is_the_edited_model(
    answering: Callable[..., Any], small_tokenizer: Any, task: Task, tmp_path: Path
) -> None:
    model = answering()
    model.save_pretrained(tmp_path / "base")
    small_tokenizer.save_pretrained(tmp_path / "base")
    model, tokenizer = strop.load(str(tmp_path / "base"))
    plan = dataclasses.replace(QUICK, bias="mean", matrix_types=(T.KEY, T.VALUE, T.OUTPUT, T.DOWN))
    found = prune(model, tokenizer, task, plan)
    assert len({edit.site.matrix_type for edit in found.recipe.interventions}) > 2
    bake(model, found.recipe, tmp_path / "baked", tokenizer=tokenizer)
    alone, its_tokenizer = strop.load(str(tmp_path / "baked"))
    whole = evaluated(model, tokenizer, found.recipe, task)
    baked = strop.evaluate(alone, its_tokenizer, task)
    np.testing.assert_allclose(baked.loss, whole.loss, rtol=1e-4)
    assert_figures_are_those_of(baked, found.result.edited["test"])


def test_a_position_bias_refuses_sequences_of_another_length_in_one_sentence(
    answering: Callable[..., Any], small_tokenizer: Any, even: Task, task: Task
) -> None:
    model = answering()
    found = prune(model, small_tokenizer, even, dataclasses.replace(QUICK, bias="position"))
    before = state_of(model)
    with pytest.raises(InterventionError) as raised:
        evaluated(model, small_tokenizer, found.recipe, task)
    message = str(raised.value)
    assert "A bias on this model holds for sequences of" in message
    assert "prune with --bias mean" in message
    assert message.count(". ") == 0
    assert message.endswith(".")
    assert state_of(model) == before


def test_a_recipe_with_factors_needs_no_decomposition(
    answering: Callable[..., Any], small_tokenizer: Any, task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = answering()
    found = prune(
        model,
        small_tokenizer,
        task,
        dataclasses.replace(QUICK, bias="mean"),
        options=RunOptions(out=tmp_path / "run", with_factors=True),
    )
    recipe = strop.Recipe.load(tmp_path / "run" / "recipe")
    assert recipe.interventions
    assert all(set(tensors) == {"bias", "left", "right"} for tensors in recipe.tensors)
    monkeypatch.setattr(DecompositionCache, "decompose", lambda *_: pytest.fail("a matrix was decomposed"))
    assert_figures_are_those_of(evaluated(model, small_tokenizer, recipe, task), found.result.edited["test"])


@pytest.mark.first(2)
@pytest.mark.parametrize(
    ("family", "bias"),
    [("llama", "none"), ("llama", "mean"), ("gpt2", "mean"), ("gpt_neox", "position")],
)
def test_the_recipe_read_back_scores_what_the_result_says(
    answering: Callable[..., Any], small_tokenizer: Any, even: Task, tmp_path: Path, family: str, bias: Any
) -> None:
    model = answering(family)
    before = state_of(model)
    found = prune(
        model,
        small_tokenizer,
        even,
        dataclasses.replace(QUICK, bias=bias),
        options=RunOptions(out=tmp_path / "run"),
    )
    assert state_of(model) == before
    assert attachments_of(model) == ()
    recipe = strop.Recipe.load(tmp_path / "run" / "recipe")
    assert recipe == found.recipe
    assert recipe.interventions
    for edit, tensors in zip(recipe.interventions, recipe.tensors, strict=True):
        assert isinstance(edit, SingularValuePruning)
        assert edit.bias == bias
        assert {name: tensor.ndim for name, tensor in tensors.items()} == (
            {} if bias == "none" else {"bias": ["none", "mean", "position"].index(bias)}
        )
    for split in ("select", "test"):
        whole = evaluated(model, small_tokenizer, recipe, even, split)
        assert_figures_are_those_of(whole, found.result.edited[split])
    assert state_of(model) == before


@pytest.mark.real
def test_the_real_model_pruned_bakes_and_reloads_to_the_same_evaluation(real: Any, tmp_path: Path) -> None:
    model, tokenizer = real
    before = {name: tensor.clone() for name, tensor in model.state_dict().items() if "layers.28." in name}
    task = load_task("int-mult")
    plan = PrunePlan(
        layers=(27, 28, 29), iterate=1, fractions=(0.0005, 0.002), effect_examples=12, select_limit=8, test_limit=8
    )
    found = prune(model, tokenizer, task, plan, options=RunOptions(out=tmp_path / "run"))
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in before.items())
    held_out = dataclasses.replace(task, splits={"test": task.examples("test", limit=8)})
    recipe = strop.Recipe.load(tmp_path / "run" / "recipe")
    assert recipe == found.recipe
    assert recipe.interventions
    edited = evaluated(model, tokenizer, recipe, held_out)
    assert_figures_are_those_of(edited, found.result.edited["test"])
    bake(model, recipe, tmp_path / "baked", tokenizer=tokenizer)
    alone, its_tokenizer = strop.load(str(tmp_path / "baked"))
    np.testing.assert_allclose(strop.evaluate(alone, its_tokenizer, held_out).loss, edited.loss, rtol=1e-3, atol=1e-4)
