"""A training learns what is there to learn, and says so only where the select split does."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import strop
from strop.interventions import Positions
from strop.recipe import Recipe
from strop.tasks import load_task
from strop.training import TrainPlan

LEARNS = TrainPlan(
    rank=8, layers=(1, 2), positions=Positions(0, 1), epochs=18, batch_size=4, accumulate=1, learning_rate=0.03
)


@pytest.mark.first(1)
@pytest.mark.parametrize(("family", "method"), [("llama", "direft"), ("gpt2", "loreft"), ("gpt_neox", "direft")])
def test_a_planted_task_is_learned(training: Any, family: str, method: str) -> None:
    found = training(dataclasses.replace(LEARNS, method=method), family=family)
    assert found.result.base["test"].accuracy < 0.1
    for split in ("select", "test"):
        assert found.result.edited[split].accuracy > 0.7
    assert found.result.comparison["test"].ci95[0] > 0.4
    assert found.test_evaluations is not None
    assert [entry["method"] for entry in found.result.interventions] == [method, method]


def test_the_recipe_on_the_base_scores_what_the_run_says(
    training: Any, tiny: Any, small_tokenizer: Any, planted: Any, tmp_path: Path
) -> None:
    found = training(out=tmp_path / "run")
    model = tiny("llama")
    with strop.applied(model, Recipe.load(tmp_path / "run" / "recipe")):
        again = strop.evaluate(model, small_tokenizer, planted, split="test")
    assert again.figures == found.result.edited["test"]


def test_no_edit_is_chosen_where_training_only_hurts(
    training: Any, knowing: Any, tmp_path: Path, plan: TrainPlan
) -> None:
    absurd = dataclasses.replace(plan, learning_rate=30.0, epochs=2)
    found = training(absurd, model=knowing(), out=tmp_path / "run")
    assert found.result.base["test"].accuracy > 0.8
    assert all(trial.loss > found.trials[0].loss + 0.1 for trial in found.trials[1:])
    assert found.recipe.interventions == ()
    assert found.result.interventions == ()
    assert found.result.edited == found.result.base
    assert found.result.comparison["test"].gain == 0
    assert [trial.key.candidate.get("epoch") for trial in found.trials] == [None, 1, 2]
    assert not (tmp_path / "run" / "best").exists()
    assert Recipe.load(tmp_path / "run" / "recipe") == found.recipe


def test_a_task_without_a_train_split_is_refused_in_one_sentence(
    training: Any, tmp_path: Path, written_task: Callable[..., Path]
) -> None:
    task = load_task(written_task(splits="{select: 0.5, test: 0.5, seed: 0}"))
    with pytest.raises(strop.StropError, match="train") as refusal:
        training(task=task, out=tmp_path / "run")
    assert str(refusal.value).count(". ") == 0
    assert not (tmp_path / "run").exists()


def test_every_epoch_is_a_trial_and_the_best_of_them_is_chosen(training: Any, plan: TrainPlan, tmp_path: Path) -> None:
    found = training(plan, out=tmp_path / "run")
    assert [trial.key.round for trial in found.trials] == [0, 1, 2, 3, 4]
    assert [trial.key.candidate.get("epoch") for trial in found.trials] == [None, 1, 2, 3, 4]
    best = max(found.trials, key=lambda trial: trial.merit)
    assert found.result.edited["select"] == best.figures
    kept = Recipe.load(tmp_path / "run" / "best")
    assert kept.provenance == {"epoch": best.key.candidate["epoch"]}
    assert kept.interventions == found.recipe.interventions
    for mine, theirs in zip(kept.tensors, found.recipe.tensors, strict=True):
        assert all((mine[name] == theirs[name]).all() for name in theirs)


def test_the_same_settings_learn_the_same_to_the_last_bit(training: Any, figures: Any, plan: TrainPlan) -> None:
    one, two = (training(dataclasses.replace(plan, dropout=0.2)) for _ in range(2))
    assert one.recipe == two.recipe
    assert figures(one) == figures(two)
    other = training(dataclasses.replace(plan, dropout=0.2, seed=1))
    assert other.recipe != one.recipe


@pytest.mark.parametrize("score", ["first_token", "perplexity"])
def test_other_scores_choose_too(training: Any, written_task: Any, plan: TrainPlan, score: str) -> None:
    found = training(plan, task=load_task(written_task(score=score)))
    assert found.result.edited["test"].loss < found.result.base["test"].loss - 1


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
def test_an_edit_that_begins_as_the_identity_changes_nothing_before_its_first_step(
    training: Any, seen: Any, plan: TrainPlan, schedule: Any
) -> None:
    begins = dataclasses.replace(plan, init="identity", schedule=schedule, epochs=1, train_limit=48)
    training(begins)
    tiny_rate = dataclasses.replace(begins, learning_rate=1e-12)
    first = seen.losses[0]
    training(tiny_rate)
    before, after = seen.losses[12:], seen.losses[:12]
    assert before[0] == after[0] == first
    assert before[-1][1] > after[-1][1] + 0.1
