"""What a training had decided when it was killed holds when it goes on: which epochs there are, and what they compete with."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from strop.proving import Budget
from strop.training import InterventionCheckpoints, TrainPlan
from strop.training.watch import Watch

pytestmark = pytest.mark.thorough

STEPS_OF_EPOCH = 12
LONG = Budget(seconds=10_000)


def epochs_of(found: Any) -> list[int]:
    return [int(trial.key.candidate["epoch"]) for trial in found.trials if "epoch" in trial.key.candidate]


@pytest.mark.parametrize("begun", [True, False])
def test_an_epoch_that_had_begun_is_gone_on_with_though_the_budget_is_spent_by_then(
    training: Any, stopped_after: Any, plan: TrainPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begun: bool
) -> None:
    plan, spent = dataclasses.replace(plan, epochs=3), [False]
    monkeypatch.setattr(Budget, "is_spent", lambda self, **_: spent[0])
    stopped_after(STEPS_OF_EPOCH + 3 if begun else STEPS_OF_EPOCH - 3)
    with pytest.raises(KeyboardInterrupt):
        training(plan, out=tmp_path / "run", budget=LONG)
    spent[0] = True
    found = training(plan, out=tmp_path / "run", resume=True, budget=LONG)
    assert epochs_of(found) == ([1, 2] if begun else [1])


def test_no_epoch_begins_after_one_that_was_to_be_the_last(
    training: Any, plan: TrainPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = dataclasses.replace(plan, epochs=3)
    monkeypatch.setattr(Budget, "is_spent", lambda self, **_: True)
    with monkeypatch.context() as patch:
        patch.setattr(Watch, "recall_best", lambda *_: None)
        patch.setattr("strop.training.fitter.Fitter._choice", _dying)
        with pytest.raises(KeyboardInterrupt):
            training(plan, out=tmp_path / "run", budget=LONG)
    monkeypatch.setattr(Budget, "is_spent", lambda self, **_: False)
    assert epochs_of(training(plan, out=tmp_path / "run", resume=True, budget=LONG)) == []
    longer = Budget(seconds=20_000)
    assert epochs_of(training(plan, out=tmp_path / "run", resume=True, budget=longer)) != []


def _dying(*_: Any) -> None:
    raise KeyboardInterrupt


def test_what_dies_between_the_average_and_the_last_checkpoint_competes_with_the_epochs_before(
    training: Any, plan: TrainPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = dataclasses.replace(TrainPlan(method="spectrum", train_limit=24, batch_size=4, accumulate=1), epochs=2)
    expected = training(plan)
    save, saved = InterventionCheckpoints._save_checkpoint, list[int]()

    def saving(*given: Any, **named: Any) -> None:
        saved.append(1)
        if len(saved) == plan.epochs:
            raise KeyboardInterrupt
        save(*given, **named)

    with monkeypatch.context() as patch:
        patch.setattr(InterventionCheckpoints, "_save_checkpoint", saving)
        with pytest.raises(KeyboardInterrupt):
            training(plan, out=tmp_path / "run")
    recalled: list[Any] = []
    recall = Watch.recall_best

    def recalling(self: Watch, until_epoch: int) -> None:
        recall(self, until_epoch)
        recalled.append((until_epoch, self.best_moment))

    monkeypatch.setattr(Watch, "recall_best", recalling)
    again = training(plan, out=tmp_path / "run", resume=True)
    [(until, moment)] = recalled
    assert until == 1
    assert moment is not None
    assert (moment.epoch, moment.averaged) == (1, False)
    assert again.recipe == expected.recipe
    assert [trial.key.text for trial in again.trials] == [trial.key.text for trial in expected.trials]
