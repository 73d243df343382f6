"""Compositions on models that are run: the gradient asked of each, what is begun with, classifiers, prices, and the cost."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.fixtures.runs import read_for_the_price, reduction_of

from strop.anatomy import WeightSite
from strop.interventions import RankReduction, applied_interventions
from strop.proving import RunOptions
from strop.recipe import Recipe
from strop.runs import read_trials
from strop.scoring import Scorer
from strop.searching import SearchPlan
from strop.searching.laser import chooser, search
from strop.tasks import Task, load_task

pytestmark = pytest.mark.thorough

PLAN = SearchPlan(layers=(1, 2), gradient_examples=8, top_matrices=2, finalists=2, max_edits=None)
COMPOSED = {
    "greedy": dataclasses.replace(PLAN, compose="greedy", max_edits=2),
    "beam": dataclasses.replace(PLAN, compose="beam", beam=2, max_edits=2),
    "ordered": dataclasses.replace(PLAN, compose="ordered"),
}


@pytest.mark.parametrize("compose", COMPOSED)
def test_every_trial_scores_what_a_whole_pass_of_the_composition_scores_and_all_is_counted(
    answering: Callable[..., Any],
    small_tokenizer: Any,
    task: Task,
    laser: Recipe,
    bits: Any,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    compose: str,
) -> None:
    model = answering()
    before, counted, asked = bits(model), list[int](), list[int]()
    real, real_effects = Scorer.evaluate, chooser.effects_on

    def watched(self: Scorer, **arguments: Any) -> Any:
        counted.append(self.tokens)
        return real(self, **arguments)

    def asking(scorer: Scorer, *given: Any, **named: Any) -> Any:
        asked.append(scorer.tokens)
        return real_effects(scorer, *given, **named)

    with monkeypatch.context() as patch:
        patch.setattr(Scorer, "evaluate", watched)
        patch.setattr(chooser, "effects_on", asking)
        options = RunOptions(after=laser, out=tmp_path / "run")
        found = search(model, small_tokenizer, task, COMPOSED[compose], options)
    assert bits(model) == before
    assert found.result.cost.evaluations == len(counted)
    assert found.result.cost.tokens == sum(counted) + sum(asked) + read_for_the_price(found)
    begun = len(laser.interventions)
    assert found.recipe.interventions[:begun] == laser.interventions
    assert len(found.recipe.interventions) > begun
    scorer = Scorer(model, small_tokenizer, task.examples("select"), task.score)
    kept = read_trials(tmp_path / "run")
    assert [[dict(each) for each in trial.below] for trial in kept] == [
        json.loads(trial.key.text).get("below", []) for trial in found.trials
    ]
    assert found.to_pandas()["below"].tolist() == [trial.key.below for trial in found.trials]
    whole = [trial for trial in found.trials if trial.key.examples == scorer.example_count and trial.key.candidate]
    assert len({len(trial.key.below) for trial in whole}) > 1
    for trial in whole[:: max(1, len(whole) // 12)]:
        below = [RankReduction(WeightSite.from_json(each), float(each["rank_fraction"])) for each in trial.key.below]
        with applied_interventions(model, [*laser.interventions, *below, reduction_of(trial)]):  # type: ignore[list-item]
            assert trial.loss == pytest.approx(scorer.evaluate().mean_loss, rel=1e-4)


@pytest.mark.parametrize("compose", COMPOSED)
def test_classifiers_are_composed_too(
    tiny_classifier: Callable[..., Any], small_tokenizer: Any, cities: Callable[..., Path], compose: str
) -> None:
    plan = dataclasses.replace(COMPOSED[compose], select_limit=16, test_limit=8)
    found = search(tiny_classifier("bert"), small_tokenizer, load_task(cities()), plan)
    best = max(found.trials, key=lambda trial: trial.merit)
    assert found.result.edited["select"].loss in {trial.loss for trial in found.trials}
    assert found.result.edited["select"].merit_by("average") >= found.result.base["select"].merit_by("average")
    if compose != "greedy":
        assert len(found.recipe.interventions) == len(best.key.below) + bool(best.key.candidate)


def test_what_drift_costs_counts_for_each_partial_composition(
    answering: Callable[..., Any], small_tokenizer: Any, task: Task
) -> None:
    tried = []
    for weight in (0.0, 1e6):
        found = search(answering(), small_tokenizer, task, dataclasses.replace(COMPOSED["beam"], price_weight=weight))
        tried.append({(trial.key.round, str(trial.key.candidate["matrix_type"])) for trial in found.trials[1:]})
    assert tried[0] != tried[1]
