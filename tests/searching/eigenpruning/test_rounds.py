"""How far a pruning goes: the loss scripted as a function of how much is removed."""

import dataclasses
import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tests.fixtures.runs import Notes

from strop.interventions import attachments_of
from strop.proving import RunOptions, RunOutcome
from strop.scoring import Evaluation, Scorer
from strop.searching import PrunePlan
from strop.searching.eigenpruning import prune
from strop.tasks import Task

COMPONENTS = 576
"""Of the tiny Llama: 3 layers of 32 in each head's eight, or each of the three MLP matrices' 32."""


def removed_count(found: RunOutcome) -> int:
    return sum(entry["removed_count"] for entry in found.result.interventions)


Script = Callable[[int, Scorer], tuple[float, float]]


@pytest.fixture
def scripted(
    answering: Callable[..., Any], small_tokenizer: Any, task: Task, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[RunOutcome, list[str]]]:
    """Prune under made-up figures: `script(removed count, scorer)` says accuracy and loss."""
    real = Scorer.evaluate

    def run(script: Script, **settings: Any) -> tuple[RunOutcome, list[str]]:
        def made_up(self: Scorer, **arguments: Any) -> Evaluation:
            found = real(self, **arguments)
            edits = [edit for attachment in attachments_of(self.model) for edit in attachment.interventions]
            accuracy, loss = script(sum(len(edit.removed) for edit in edits), self)
            correct = np.arange(found.count) < round(accuracy * found.count)
            return dataclasses.replace(found, loss=np.full(found.count, loss), correct=correct)

        monkeypatch.setattr(Scorer, "evaluate", made_up)
        notes = Notes()
        plan = PrunePlan(allow_harmful=True, **settings)
        found = prune(answering(), small_tokenizer, task, plan, options=RunOptions(progress=notes))
        monkeypatch.setattr(Scorer, "evaluate", real)
        return found, notes.lines

    return run


FIVE = (0.01, 0.02, 0.03, 0.05, 0.1, 0.2)
SIZES = tuple(round(fraction * COMPONENTS) for fraction in FIVE)


def fractions_tried(found: RunOutcome, split: str, number: int = 1) -> list[float]:
    return [
        trial.key.candidate["fraction"]
        for trial in found.trials
        if trial.key.candidate and (trial.key.split, trial.key.round) == (split, number)
    ]


def test_larger_steps_are_tried_until_two_in_a_row_are_worse(scripted: Any) -> None:
    by_size = dict(zip(SIZES, (4.0, 2.0, 3.0, 1.0, 5.0, 0.1), strict=True))
    found, _ = scripted(lambda count, _: (0.5, by_size.get(count, 9.0)), fractions=FIVE, iterate=1)
    assert fractions_tried(found, "train") == list(FIVE)
    assert fractions_tried(found, "select") == [0.2, 0.05]  # the two best on train
    by_size = dict(zip(SIZES, (4.0, 2.0, 3.0, 2.5, 0.1, 0.1), strict=True))
    found, _ = scripted(lambda count, _: (0.5, by_size.get(count, 9.0)), fractions=FIVE, iterate=1, finalists=1)
    assert fractions_tried(found, "train") == [0.01, 0.02, 0.03, 0.05]
    assert fractions_tried(found, "select") == [0.02]


def test_each_kind_of_step_is_tried_until_two_in_a_row_are_worse(scripted: Any) -> None:
    settings = {"fractions": (0.05, 0.1, 0.2, 0.3), "scopes": ("global", "per-type"), "iterate": 1}
    found, _ = scripted(lambda count, _: (0.5, float(count)), **settings)
    tried = Counter(t.key.candidate["scope"] for t in found.trials if t.key.split == "train" and t.key.candidate)
    assert tried == {"global": 3, "per-type": 3}


def test_no_lower_loss_in_as_many_rounds_as_patience_ends_it(scripted: Any) -> None:
    found, lines = scripted(lambda count, _: (0.5, 1.0 + count), fractions=(0.01,), iterate=9, patience=2)
    assert lines[-2:] == ["no lower loss in 2 rounds; stopping", "nothing tried beats what there is; nothing is pruned"]
    assert max(trial.key.round for trial in found.trials) == 2
    assert found.recipe.interventions == ()


def test_a_lower_loss_renews_the_patience_and_the_best_of_all_rounds_is_chosen(scripted: Any) -> None:
    losses = [9.0, 10.0, 8.0, 8.5, 8.7, 7.0]
    found, lines = scripted(
        lambda count, _: (0.5, losses[min(count // 6, 5)]), fractions=(0.01,), iterate=4, patience=2
    )
    assert "no lower loss in 2 rounds; stopping" in lines
    assert max(trial.key.round for trial in found.trials) == 4
    assert removed_count(found) == 12  # as after the second round


def test_accuracy_on_select_says_how_far_it_was_worth_going(scripted: Any) -> None:
    """Though the loss falls on, the third round answers less."""
    accuracies = [0.25, 0.5, 0.75, 0.5, 0.5]
    found, _ = scripted(lambda count, _: (accuracies[count // 6], 9.0 - count / 6), fractions=(0.01,), iterate=4)
    assert max(trial.key.round for trial in found.trials) == 4
    assert removed_count(found) == 12
    assert found.result.edited["select"].accuracy == 0.75


def test_a_step_that_makes_the_loss_no_number_is_never_chosen(scripted: Any) -> None:
    for broken in range(3):
        sizes = [size for index, size in enumerate(SIZES[:3]) if index != broken]
        for finalists in (1, 3):
            found, _ = scripted(
                lambda count, _, sizes=sizes: (0.5, 9.0 if not count else 5.0 if count in sizes else math.nan),
                fractions=FIVE[:3], iterate=1, finalists=finalists,
            )  # fmt: skip
            assert removed_count(found) in sizes
            assert found.result.edited["select"].loss == 5.0
