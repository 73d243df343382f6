"""The average of what weights learned late: taken step by step, a candidate beside the epochs, resumed to the last bit."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from strop.recipe import Recipe
from strop.tasks import load_task
from strop.training import TrainPlan
from strop.training.averaging import averaged, late_steps, note_step
from strop.training.watch import Watch

pytestmark = pytest.mark.thorough

SPECTRUM = TrainPlan(
    method="spectrum", layers=(1, 2), epochs=3, batch_size=4, accumulate=1, learning_rate=0.05, keep_base=0
)


@pytest.mark.parametrize(("steps", "late"), [(1, 1), (2, 1), (36, 12), (100, 33)])
def test_the_last_third_of_the_steps_is_late(steps: int, late: int) -> None:
    assert late_steps(steps) == late


def test_the_average_is_the_mean_of_what_late_steps_left() -> None:
    parameter = torch.nn.Parameter(torch.zeros(3))
    optimiser = torch.optim.AdamW([parameter], lr=0.1)
    left = []
    for step in range(1, 11):
        parameter.grad = torch.tensor([1.0, -2.0, float(step)])
        optimiser.step()
        note_step(optimiser, step=step, steps=10)
        left.append(parameter.detach().clone())
    with averaged(optimiser):
        torch.testing.assert_close(parameter.detach(), torch.stack(left[-3:]).mean(0), atol=1e-7, rtol=1e-6)
    assert torch.equal(parameter.detach(), left[-1])


def test_select_may_choose_the_average_and_a_resumed_training_finds_the_same(
    training: Any,
    stopped_after: Any,
    figures: Any,
    written_task: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Steps of one size, and large ones: the edits go to and fro, and their average is better than any of them."""
    plan = dataclasses.replace(SPECTRUM, schedule="constant", learning_rate=1.0)
    task = load_task(written_task(score="perplexity"))
    left: list[torch.Tensor] = []
    real = Watch.on_step_end

    def noting(self: Watch, *given: Any, **named: Any) -> None:
        left.append(self._attachment.tensors[0]["change"])
        real(self, *given, **named)

    with monkeypatch.context() as patch:
        patch.setattr(Watch, "on_step_end", noting)
        whole = training(plan, task=task)
    own = [trial for trial in whole.trials if trial.key.method == "spectrum"]
    assert [dict(trial.key.candidate) for trial in own] == [
        {"epoch": 1}, {"epoch": 2}, {"epoch": 3}, {"epoch": 3, "averaged": 1},
    ]  # fmt: skip
    assert max(own, key=lambda trial: trial.merit) is own[-1]
    assert whole.result.edited["select"].loss == pytest.approx(own[-1].loss, rel=1e-4)
    mean = torch.stack(left[-12:]).mean(0)
    torch.testing.assert_close(whole.recipe.tensors[0]["change"], mean, atol=1e-5, rtol=1e-4)
    stopped_after(30)
    with pytest.raises(KeyboardInterrupt):
        training(plan, task=task, out=tmp_path / "run")
    again = training(plan, task=task, out=tmp_path / "run", resume=True)
    assert figures(again) == figures(whole)
    assert again.recipe == whole.recipe
    assert Recipe.load(tmp_path / "run" / "best").provenance == {"epoch": 3, "averaged": 1}


def test_biases_are_averaged_too(training: Any) -> None:
    found = training(dataclasses.replace(SPECTRUM, method="bias", epochs=1, train_limit=12))
    assert [dict(trial.key.candidate) for trial in found.trials] == [{}, {"epoch": 1}, {"epoch": 1, "averaged": 1}]


def test_edits_of_hidden_states_are_not_averaged(training: Any, plan: TrainPlan) -> None:
    found = training(dataclasses.replace(plan, epochs=1))
    assert [dict(trial.key.candidate) for trial in found.trials] == [{}, {"epoch": 1}]
