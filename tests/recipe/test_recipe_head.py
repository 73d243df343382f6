"""A recipe's head: in the folder, in equality, in words; and damage is refused by name."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from strop import Head, Recipe
from strop.anatomy import StreamSite
from strop.errors import InterventionError, RecipeError
from strop.interventions import LowRankEdit, Positions

Classifier = Callable[..., Any]


@pytest.fixture
def recipe(tiny_classifier: Classifier) -> Recipe:
    model = tiny_classifier("roberta")
    edit = LowRankEdit(StreamSite(0), "loreft", rank=2, positions=Positions(1, 1))
    return Recipe.of(model, [edit], tensors=[edit.initial_tensors((32, 32))], head=Head.of(model, ("no", "yes")))


def test_a_head_is_written_beside_the_edits_and_read_back_equal(recipe: Recipe, tmp_path: Path) -> None:
    recipe.save(tmp_path / "recipe")
    written = json.loads((tmp_path / "recipe" / "recipe.json").read_text())
    names = [
        "classifier.dense.bias",
        "classifier.dense.weight",
        "classifier.out_proj.bias",
        "classifier.out_proj.weight",
    ]
    assert written["format"] == 1
    assert written["head"] == {"labels": ["no", "yes"], "tensors": names, "parameters": 32 * 32 + 32 + 2 * 32 + 2}
    tensors = load_file(tmp_path / "recipe" / "tensors.safetensors")
    assert set(tensors) == {"0.basis", "0.source", "0.bias", *(f"head.{name}" for name in names)}
    assert Recipe.load(tmp_path / "recipe") == recipe
    assert "a classification head of 2 labels (no, yes), with 1,122 parameters of its own" in str(recipe)
    assert recipe.describe_exactly()[-1]["head"] == ["no", "yes"]
    assert [entry["parameters"] for entry in recipe.describe()] == [130]


def test_the_head_is_a_part_of_equality(recipe: Recipe) -> None:
    assert recipe.head is not None
    moved = {name: tensor + 1e-7 for name, tensor in recipe.head.tensors.items()}
    for other in (None, Head(("yes", "no"), recipe.head.tensors), recipe.head.with_tensors(moved)):
        assert dataclasses.replace(recipe, head=other) != recipe
    assert dataclasses.replace(recipe, head=recipe.head.with_tensors(recipe.head.tensors)) == recipe


def test_a_recipe_without_a_head_says_nothing_of_one(recipe: Recipe, tmp_path: Path) -> None:
    dataclasses.replace(recipe, head=None).save(tmp_path / "recipe")
    assert "head" not in json.loads((tmp_path / "recipe" / "recipe.json").read_text())
    assert Recipe.load(tmp_path / "recipe").head is None


@pytest.mark.parametrize("what", ["tensor", "entry"])
def test_half_a_head_is_refused_by_name(recipe: Recipe, tmp_path: Path, what: str) -> None:
    folder = recipe.save(tmp_path / "recipe")
    if what == "tensor":
        tensors = load_file(folder / "tensors.safetensors")
        del tensors["head.classifier.dense.bias"]
        save_file(tensors, folder / "tensors.safetensors")
    else:
        content = json.loads((folder / "recipe.json").read_text())
        del content["head"]
        (folder / "recipe.json").write_text(json.dumps(content))
    with pytest.raises(
        RecipeError, match=r"its head's tensor 'classifier\.dense\.bias' is in only one of recipe\.json and"
    ):
        Recipe.load(folder)


def test_a_head_of_no_finite_numbers_or_of_no_classifier_is_refused(
    recipe: Recipe, tiny: Classifier, tiny_classifier: Classifier
) -> None:
    assert recipe.head is not None
    broken = {name: torch.full_like(tensor, torch.nan) for name, tensor in recipe.head.tensors.items()}
    with pytest.raises(
        InterventionError, match=r"^The recipe's classifier\.\S+ is not made of finite numbers; train anew"
    ):
        recipe.head.with_tensors(broken).check(tiny_classifier("roberta"))
    with pytest.raises(InterventionError, match=r"needs a classifier, and LlamaForCausalLM is none"):
        Head.of(tiny("llama"), ("no", "yes"))
    with pytest.raises(InterventionError, match=r"^This Bert\w+ has 2 labels, and one output, a number are needed"):
        Head.of(tiny_classifier("bert"), ())
