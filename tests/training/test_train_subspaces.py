"""Named subspaces are trained by themselves, and trainings go on from recipes."""

import dataclasses
from typing import Any

import pytest
import torch

import strop
from strop.anatomy import MatrixType, WeightSite
from strop.interventions import LowRankEdit, RankReduction
from strop.recipe import Recipe
from strop.training import TrainPlan

pytestmark = pytest.mark.thorough

TONGUES = (("french", 1), ("danish", 3))


def rows(recipe: Recipe, name: str) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Of each edit, what its subspaces `french` and `danish` hold in one tensor."""
    return [(tensors[name][:1], tensors[name][1:]) for tensors in recipe.tensors]


@pytest.mark.parametrize("method", ["loreft", "direft", "noreft"])
def test_one_subspace_learns_and_the_others_stay_to_the_last_bit(training: Any, plan: TrainPlan, method: str) -> None:
    plan = dataclasses.replace(plan, method=method, subspaces=TONGUES, epochs=2)
    both = training(plan)
    again = training(dataclasses.replace(plan, train_subspaces=("danish",)), after=both.recipe)
    assert again.recipe.interventions == both.recipe.interventions
    assert again.recipe != both.recipe
    for name in ("basis", "source", "bias"):
        for (french, danish), (french_after, danish_after) in zip(
            rows(both.recipe, name), rows(again.recipe, name), strict=True
        ):
            assert torch.equal(french, french_after)
            assert not torch.equal(danish, danish_after)
    assert again.result.edited["select"].loss < both.result.edited["select"].loss
    assert "select" not in again.result.start


def test_a_subspace_alone_learns_from_the_beginning(training: Any, plan: TrainPlan) -> None:
    found = training(dataclasses.replace(plan, subspaces=TONGUES, train_subspaces=("french",), weight_decay=0.1))
    start = dataclasses.replace(plan, subspaces=TONGUES).edits_at(1)[0]
    generator = torch.Generator().manual_seed(plan.seed)
    drawn = start.initial_tensors((32, 32), init="paper", generator=generator)
    for name, tensor in drawn.items():
        assert torch.equal(found.recipe.tensors[0][name][1:], tensor[1:])
        assert not torch.equal(found.recipe.tensors[0][name][:1], tensor[:1])


def test_a_subspace_that_is_not_there_is_refused_by_name(training: Any, plan: TrainPlan) -> None:
    wanted = dataclasses.replace(plan, subspaces=TONGUES, train_subspaces=("greek",))
    with pytest.raises(strop.StropError, match="no subspace 'greek'; it has french, danish"):
        training(wanted)


def test_a_training_after_a_laser_recipe_has_both_and_says_what_each_gains(
    training: Any, tiny: Any, plan: TrainPlan, small_tokenizer: Any, planted: Any
) -> None:
    model = tiny("llama")
    laser = Recipe.of(model, [RankReduction(WeightSite(2, MatrixType.UP), 0.25)])
    found = training(plan, model=model, after=laser)
    assert found.recipe.interventions[:1] == laser.interventions
    assert [type(entry) for entry in found.recipe.interventions] == [RankReduction, LowRankEdit, LowRankEdit]
    assert [entry["method"] for entry in found.result.interventions] == ["rank_reduction", "loreft", "loreft"]
    with strop.applied(model, laser):
        start = strop.evaluate(model, small_tokenizer, planted, split="test")
    with strop.applied(model, found.recipe):
        edited = strop.evaluate(model, small_tokenizer, planted, split="test")
    assert found.result.start["test"].loss == pytest.approx(start.mean_loss, rel=1e-6)
    assert found.result.edited["test"].loss == pytest.approx(edited.mean_loss, rel=1e-6)
    gain = found.result.edited["test"].accuracy - found.result.start["test"].accuracy
    assert found.result.comparison["test_over_start"].gain == pytest.approx(gain)
    assert [trial.key.method for trial in found.trials] == ["base", "start", *["loreft"] * 4]
    assert [trial.key.candidate.get("epoch") for trial in found.trials] == [None, None, 1, 2, 3, 4]


def test_where_nothing_is_better_the_recipe_to_begin_with_comes_out(
    training: Any, knowing: Any, plan: TrainPlan
) -> None:
    model = knowing()
    laser = Recipe.of(model, [RankReduction(WeightSite(2, MatrixType.UP), 0.9)])
    found = training(dataclasses.replace(plan, learning_rate=30.0, epochs=1), model=model, after=laser)
    assert found.recipe.interventions == laser.interventions
    assert found.result.edited == found.result.start


def test_edits_of_a_recipe_to_begin_with_do_not_learn(training: Any, plan: TrainPlan) -> None:
    first = training(dataclasses.replace(plan, layers=(0,), epochs=1))
    second = training(dataclasses.replace(plan, epochs=2, dropout=0.5), after=first.recipe)
    assert len(second.recipe.interventions) == 3
    for name, tensor in first.recipe.tensors[0].items():
        assert torch.equal(second.recipe.tensors[0][name], tensor)
    assert second.result.comparison["test_over_start"].gain is not None


def test_a_training_after_a_recipe_goes_on_too(
    training: Any, tiny: Any, seen: Any, stopped_after: Any, figures: Any, plan: TrainPlan, tmp_path: Any
) -> None:
    model = tiny("llama")
    laser = Recipe.of(model, [RankReduction(WeightSite(0, MatrixType.UP), 0.25)])
    plan = dataclasses.replace(plan, epochs=2)
    whole = training(plan, model=model, after=laser)
    expected = list(seen.losses)
    seen.losses.clear()
    stopped_after(15)
    with pytest.raises(KeyboardInterrupt):
        training(plan, model=model, after=laser, out=tmp_path / "run")
    again = training(plan, model=model, after=laser, out=tmp_path / "run", resume=True)
    assert seen.losses == expected
    assert (figures(again), again.recipe) == (figures(whole), whole.recipe)
    other = Recipe.of(model, [RankReduction(WeightSite(0, MatrixType.UP), 0.5)])
    with pytest.raises(strop.StropError, match=r"began with plan\.after"):
        training(plan, model=model, after=other, out=tmp_path / "run", resume=True)
