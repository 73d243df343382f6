"""Pruning by learning: gates that open and shut, as many as were asked for, and a recipe that is a pruning."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from strop.errors import UsageError
from strop.export import bake
from strop.interventions import SingularValuePruning, SpectrumScaling
from strop.recipe import Recipe, applied
from strop.training import TrainPlan
from strop.training.gates import Gates, as_prunings
from strop.training.watch import Watch

pytestmark = pytest.mark.thorough

PLAN = TrainPlan(
    method="spectrum", layers=(1, 2), sparsity=0.9, epochs=3, batch_size=8, accumulate=1, keep_base=0, train_limit=32
)


def test_what_goes_is_what_all_gradients_so_far_speak_for_most() -> None:
    one, two = torch.nn.Parameter(torch.zeros(2)), torch.nn.Parameter(torch.zeros(3))
    gates = Gates([one, two], removals=2, steps=4)
    changes = []
    for first, second in [
        ((1.0, 3.0), (-5.0, 0.0, 2.0)),
        ((1.0, -4.0), (-5.0, 0.0, 0.5)),
        ((0.0, 2.0), (4.0, 0.0, 0.0)),
    ]:
        one.grad, two.grad = torch.tensor(first), torch.tensor(second)
        gates.step()
        changes.append([*one.tolist(), *two.tolist()])
    assert changes == [
        [0, -1, 0, 0, 0],  # one of two while the number rises: the largest of 1, 3, -5, 0, 2
        [-1, 0, 0, 0, -1],  # 2, -1, -10, 0, 2.5: the gate shut first opens again
        [-1, 0, 0, 0, -1],  # 2, 1, -6, 0, 2.5
    ]


def test_nothing_goes_that_the_gradients_speak_against() -> None:
    parameter = torch.nn.Parameter(torch.zeros(3))
    gates = Gates([parameter], removals=3, steps=1)
    parameter.grad = torch.tensor([-1.0, 2.0, 0.0])
    gates.step()
    assert parameter.tolist() == [0, -1, 0]


def test_what_is_learned_is_a_pruning_of_the_size_that_was_asked_for(
    training: Any, tiny: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny("llama")
    best: list[Any] = []
    real = Watch._judge

    def noting(self: Watch, *given: Any) -> None:
        real(self, *given)
        best[:] = [(self._recipe, self.best_tensors)]
        learned = torch.cat([tensors["change"] for tensors in self._attachment.tensors])
        assert set(learned.tolist()) <= {0.0, -1.0}

    monkeypatch.setattr(Watch, "_judge", noting)
    found = training(PLAN, model=model, out=tmp_path / "run")
    total = sum(tensors["change"].numel() for tensors in best[0][1])
    entries = found.recipe.interventions
    assert entries
    assert {type(entry) for entry in entries} == {SingularValuePruning}
    assert sum(len(entry.removed) for entry in entries) <= round(0.1 * total)
    assert found.recipe.tensors == ({},) * len(entries)
    assert found.result.edited["select"].loss < found.result.base["select"].loss
    scaling = Recipe.of(model, best[0][0].interventions, tensors=best[0][1])
    assert {type(entry) for entry in scaling.interventions} == {SpectrumScaling}
    kept = []
    for name, recipe in (("pruned", Recipe.load(tmp_path / "run" / "recipe")), ("scaled", scaling)):
        kept.append(type(model).from_pretrained(bake(model, recipe, tmp_path / name)).state_dict())
        with applied(model, recipe):
            kept.append({own: tensor.clone() for own, tensor in model.state_dict().items()})
    for other in kept[1:]:
        assert all(torch.equal(tensor, other[own]) for own, tensor in kept[0].items())


def test_a_pruning_that_was_interrupted_ends_as_it_would_have(
    training: Any, stopped_after: Any, figures: Any, tiny: Callable[..., Any], tmp_path: Path
) -> None:
    whole = training(PLAN, model=tiny("llama"))
    stopped_after(6)
    with pytest.raises(KeyboardInterrupt):
        training(PLAN, model=tiny("llama"), out=tmp_path / "run")
    again = training(PLAN, model=tiny("llama"), out=tmp_path / "run", resume=True)
    assert (figures(again), again.recipe) == (figures(whole), whole.recipe)


def test_scales_that_only_remove_are_prunings_and_all_others_stay_what_they_are() -> None:
    from strop.anatomy import MatrixType, WeightSite

    sites = [WeightSite(layer, MatrixType.UP) for layer in range(3)]
    changes = [torch.tensor(own) for own in ([0.0, -1.0, -1.0], [0.0, 0.0, 0.0], [0.0, -1.0, 0.2])]
    entries = [SpectrumScaling(site) for site in sites]
    found, tensors = as_prunings(entries, [{"change": change} for change in changes])
    assert found == (SingularValuePruning(sites[0], (1, 2)), entries[2])
    assert tensors[0] == {}
    assert torch.equal(tensors[1]["change"], changes[2])


def test_a_sparsity_that_removes_nothing_is_refused(training: Any) -> None:
    with pytest.raises(UsageError, match=r"A sparsity of 0.9999 removes none of [\d,]+ singular values; give less"):
        training(dataclasses.replace(PLAN, sparsity=0.9999))
