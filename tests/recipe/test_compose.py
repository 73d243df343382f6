"""Recipes of one base add up where that is exact, and are refused in one sentence where it is not."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.fixtures.every_method import factors
from tests.fixtures.recipes import EDITS, PROVENANCE, logits

import strop
from strop.anatomy import MatrixType, StreamSite, WeightSite
from strop.errors import BaseMismatchError, RecipeError
from strop.interventions import LowRankEdit, LowRankUpdate, Positions, RankReduction, SpectrumScaling
from strop.recipe import Recipe


@pytest.fixture
def model(tiny: Callable[..., Any]) -> Any:
    return tiny("llama")


def test_a_sum_is_both_one_after_the_other(model: Any, tmp_path: Path) -> None:
    first, second = Recipe.of(model, EDITS[:1]), Recipe.of(model, EDITS[1:], provenance=PROVENANCE)
    both = first + second
    assert both.interventions == EDITS
    assert (second + first).interventions == (*EDITS[1:], EDITS[0])
    with strop.applied(model, first), strop.applied(model, second):
        expected = logits(model)
    with strop.applied(model, both):
        assert torch.equal(logits(model), expected)
    assert Recipe.load(both.save(tmp_path / "both")) == both


def test_a_sum_keeps_tensors_beside_their_interventions(model: Any) -> None:
    factors = Recipe.of(model, EDITS[1:2]).with_factors(model)
    both = Recipe.of(model, EDITS[:1]) + factors
    assert not both.tensors[0]
    assert both.tensors[1].keys() == factors.tensors[0].keys()


def test_a_sum_claims_no_figures_and_names_its_parts(model: Any) -> None:
    measured = Recipe.of(model, EDITS[:1], provenance=PROVENANCE)
    both = measured + Recipe.of(model, EDITS[1:2], provenance=PROVENANCE)
    assert dict(both.provenance) == {"parts": [PROVENANCE, PROVENANCE]}
    more = both + Recipe.of(model, EDITS[2:], provenance=PROVENANCE)
    assert len(more.provenance["parts"]) == 3
    assert "held-out" not in more.card()


def test_nothing_added_is_the_same_edits(model: Any) -> None:
    recipe = Recipe.of(model, EDITS)
    assert (recipe + Recipe.of(model, [])).interventions == EDITS
    assert (Recipe.of(model, []) + recipe).interventions == EDITS


@pytest.mark.parametrize(
    ("mine", "theirs"),
    [
        (EDITS[0], EDITS[0]),
        (EDITS[0], RankReduction(WeightSite(1, MatrixType.UP), 0.5)),
        (EDITS[2], RankReduction(WeightSite(2, MatrixType.VALUE), 0.5)),
    ],
    ids=["the same edit", "the same matrix", "a head of it"],
)
def test_two_edits_of_one_matrix_are_refused(model: Any, mine: Any, theirs: Any) -> None:
    with pytest.raises(
        RecipeError, match=r"Both recipes edit layer \d (up|value), and the second does not know"
    ) as told:
        Recipe.of(model, [mine]) + Recipe.of(model, [theirs])
    assert "--after" in str(told.value)


def test_two_edits_of_the_same_hidden_states_are_refused_and_others_are_not(model: Any) -> None:
    def edit(layer: int) -> Recipe:
        entry = LowRankEdit(StreamSite(layer), "loreft", 2, Positions(last=1))
        return Recipe.of(model, [entry], tensors=[entry.initial_tensors((32, 32))])

    assert len((edit(1) + edit(2)).interventions) == 2
    assert len((edit(1) + Recipe.of(model, EDITS)).interventions) == 4
    with pytest.raises(RecipeError, match="Both recipes edit layer 1 block"):
        edit(1) + edit(1)


def test_recipes_of_different_bases_are_refused(model: Any, tiny: Callable[..., Any]) -> None:
    other = tiny("llama")
    with torch.no_grad():
        next(other.parameters()).add_(1)
    with pytest.raises(BaseMismatchError, match="these were made for different weights of LlamaForCausalLM"):
        Recipe.of(model, EDITS[:1]) + Recipe.of(other, EDITS[1:])
    named = dataclasses.replace(Recipe.of(other, EDITS[1:]).base, id="/home/me/other")
    with pytest.raises(BaseMismatchError, match="these were made for LlamaForCausalLM and other"):
        Recipe.of(model, EDITS[:1]) + dataclasses.replace(Recipe.of(other, EDITS[1:]), base=named)


def test_a_sum_with_anything_else_is_a_type_error(model: Any) -> None:
    with pytest.raises(TypeError):
        Recipe.of(model, EDITS) + 1


@pytest.fixture
def scaled(model: Any) -> Callable[..., Recipe]:
    """Return a recipe that scales the singular values of layer 1 up, (32,), by levels or by changes."""

    def of(value: float, *, step: float | None = None, **options: Any) -> Recipe:
        entry = SpectrumScaling(WeightSite(1, MatrixType.UP), step, **options)
        numbers = torch.full((32,), value)
        own = {"change": numbers} if step is None else {"levels": numbers.to(torch.int8)}
        return Recipe.of(model, [entry], tensors=[own])

    return of


def test_two_loras_of_a_matrix_are_one(model: Any, tmp_path: Path) -> None:
    def lora(rank: int, alpha: float, matrix_type: MatrixType = MatrixType.UP) -> Recipe:
        entry = LowRankUpdate(WeightSite(1, matrix_type), rank, alpha)
        shape = model.model.layers[1].mlp.up_proj.weight.shape if matrix_type is MatrixType.UP else (32, 32)
        return Recipe.of(model, [entry], tensors=[factors(entry, tuple(shape))])

    first, second = lora(2, 4), lora(3, 1)
    both = first + second
    assert both.summary == ["LoRA of rank 5 (α 10) on up in layer 1 (400 learned parameters)"]
    with strop.applied(model, first), strop.applied(model, second, force=True):
        expected = logits(model)
    with strop.applied(model, Recipe.load(both.save(tmp_path / "both"))):
        torch.testing.assert_close(logits(model), expected, atol=1e-5, rtol=1e-4)
    assert len((first + lora(2, 4, MatrixType.QUERY)).interventions) == 2
    scaling = SpectrumScaling(WeightSite(1, MatrixType.UP))
    scaled = Recipe.of(model, [scaling], tensors=[{"change": torch.zeros(32)}])
    with pytest.raises(RecipeError, match="Both recipes edit layer 1 up"):
        first + scaled


def test_changes_of_the_same_singular_values_add_up(model: Any, scaled: Callable[..., Recipe], tmp_path: Path) -> None:
    both = scaled(0.25) + scaled(2, step=0.125)
    assert len(both.interventions) == len(both.matrices) == 1
    assert torch.equal(both.tensors[0]["change"], torch.full((32,), 0.5))
    weight = model.model.layers[1].mlp.up_proj.weight
    before = weight.detach().clone()
    with strop.applied(model, both):
        torch.testing.assert_close(weight.detach(), 1.5 * before)
    assert Recipe.load(both.save(tmp_path / "both")) == both


def test_levels_of_one_step_stay_levels(scaled: Callable[..., Recipe]) -> None:
    both = scaled(2, step=0.01) + scaled(-3, step=0.01)
    assert both.interventions[0].step == 0.01
    assert both.tensors[0]["levels"].tolist() == [-1] * 32
    beyond = scaled(100, step=0.01) + scaled(100, step=0.01)
    assert beyond.interventions[0].step is None
    torch.testing.assert_close(beyond.tensors[0]["change"], torch.full((32,), 2.0))


def test_what_does_not_add_up_is_refused(model: Any, scaled: Callable[..., Recipe]) -> None:
    with pytest.raises(RecipeError, match="cannot be added: layer 1 up: the changes of singular values lie between -1"):
        scaled(-0.75) + scaled(-0.75)
    site = WeightSite(1, MatrixType.UP)
    of_some = Recipe.of(model, [SpectrumScaling(site, top=4)], tensors=[{"change": torch.zeros(4)}])
    again = Recipe.of(model, [SpectrumScaling(site)] * 2, tensors=[{"change": torch.zeros(32)}] * 2)
    for other in (of_some, again, Recipe.of(model, [RankReduction(site, 0.5)])):
        with pytest.raises(RecipeError, match="Both recipes edit layer 1 up"):
            scaled(0.5) + other
        with pytest.raises(RecipeError, match="Both recipes edit layer 1 up"):
            other + scaled(0.5)
