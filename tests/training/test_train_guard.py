"""Where all of what was learned drifts further than a guard allows, as much of it is chosen as the guard allows."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.fixtures.runs import Notes

from strop.interventions import Positions
from strop.proving import Guard
from strop.training import TrainPlan
from strop.training.lessening import share_within

STATES = {"positions": Positions.parse("all"), "init": "identity"}
WEIGHTS = {"layers": None, "positions": TrainPlan().positions, "init": "identity", "rank": TrainPlan().rank}
METHODS: dict[str, dict[str, Any]] = {
    "loreft": STATES,
    "direft": STATES,
    "spectrum": {**WEIGHTS, "learning_rate": 0.05},
    "bias": {**WEIGHTS, "learning_rate": 0.05},
    "lora": {**WEIGHTS, "rank": 4, "learning_rate": 0.02},
}


def plan_of(plan: TrainPlan, method: str) -> TrainPlan:
    return dataclasses.replace(plan, method=method, epochs=2, **METHODS[method])


@pytest.mark.parametrize("method", METHODS)
def test_as_much_is_chosen_as_the_guard_allows(training: Any, plan: TrainPlan, method: str) -> None:
    plan = plan_of(plan, method)
    free = training(plan)
    bound = 0.5 * free.result.price.drift.kl
    notes = Notes()
    guarded = training(plan, guards=(Guard.parse(f"drift:{bound}"),), progress=notes)
    assert 0.5 * bound < guarded.result.price.drift.kl <= bound
    assert guarded.result.edited["select"].loss < guarded.result.base["select"].loss
    assert any(" of epoch" in line and "the best so far" in line for line in notes.lines)
    [reading] = guarded.result.guards
    assert reading.holds


def test_it_is_the_share_of_what_would_have_been_chosen(training: Any, plan: TrainPlan) -> None:
    plan = dataclasses.replace(plan_of(plan, "bias"), epochs=1)
    free = training(plan)
    bound = 0.5 * free.result.price.drift.kl
    guarded = training(plan, guards=(Guard.parse(f"drift:{bound}"),))
    shares = {trial.key.candidate["share"]: trial.loss for trial in guarded.trials if "share" in trial.key.candidate}
    chosen = guarded.result.edited["select"]
    for whole, less in zip(free.recipe.tensors, guarded.recipe.tensors, strict=True):
        share = float(less["bias"].norm() / whole["bias"].norm())
        assert any(abs(share - own) < 1e-6 and loss == chosen.loss for own, loss in shares.items())
        torch.testing.assert_close(less["bias"], share * whole["bias"])


def test_a_stopped_run_chooses_the_same_share(
    training: Any, plan: TrainPlan, stopped_after: Any, tmp_path: Path
) -> None:
    plan = plan_of(plan, "spectrum")
    guards = (Guard.parse(f"drift:{0.4 * training(plan).result.price.drift.kl}"),)
    whole = training(plan, guards=guards)
    stopped_after(15)
    with pytest.raises(KeyboardInterrupt):
        training(plan, guards=guards, out=tmp_path / "run")
    found = training(plan, guards=guards, out=tmp_path / "run", resume=True)
    assert found.recipe == whole.recipe
    assert found.recipe.interventions


def test_a_guard_that_allows_nothing_leaves_the_model_as_it_is(training: Any, plan: TrainPlan) -> None:
    found = training(plan_of(plan, "bias"), guards=(Guard.parse("drift:0"),))
    assert found.result.interventions == ()


def test_what_has_no_share_is_refused_as_a_whole(training: Any, plan: TrainPlan) -> None:
    plan = dataclasses.replace(plan, method="consreft", init="paper")
    notes = Notes()
    bound = 0.5 * training(plan).result.price.drift.kl
    found = training(plan, guards=(Guard.parse(f"drift:{bound}"),), progress=notes)
    assert any(line.startswith("refused by the guard on drift") for line in notes.lines)
    assert not any(" of epoch" in line for line in notes.lines)
    assert found.result.price is None or found.result.price.drift.kl <= bound


@pytest.mark.parametrize(
    ("harms", "bound", "share"),
    [
        ([(1.0, 0.05)], 0.05, 0.0),
        ([(1.0, 0.2)], 0.05, 0.47),
        ([(1.0, 0.2), (0.47, 0.1)], 0.05, 0.2072),  # it grows with the share itself
        ([(1.0, 0.2), (0.47, 0.21)], 0.05, 0.0),  # it does not fall: as little is left as nothing
        ([(1.0, math.nan)], 0.05, 0.0),
        ([(1.0, math.inf)], 0.05, 0.0),
        ([(1.0, 50.0)], 0.05, 0.0),
        ([(1.0, 0.1)], 0.0, 0.0),
    ],
)
def test_the_share_follows_from_what_was_found_to_harm(
    harms: list[tuple[float, float]], bound: float, share: float
) -> None:
    assert share_within(bound, harms) == pytest.approx(share, abs=1e-3)


def test_what_lies_below_harms_however_little_is_left() -> None:
    assert share_within(0.05, [(1.0, 0.2)], at_none=0.04) == pytest.approx(0.94 * (0.01 / 0.16) ** 0.5, abs=1e-4)
    assert share_within(0.05, [(1.0, 0.2)], at_none=0.05) == 0.0
    assert share_within(0.05, [(1.0, 0.2)], at_none=math.nan) == 0.0


def test_a_share_is_of_what_is_learned_on_top_of_a_recipe(training: Any, plan: TrainPlan) -> None:
    below = dataclasses.replace(plan_of(plan, "bias"), epochs=1, learning_rate=0.02)
    first = training(below)
    on_top = dataclasses.replace(plan_of(plan, "spectrum"), epochs=1)
    free = training(on_top, after=first.recipe)
    low, high = first.result.price.drift.kl, free.result.price.drift.kl
    assert low < high
    bound = low + 0.4 * (high - low)
    found = training(on_top, after=first.recipe, guards=(Guard.parse(f"drift:{bound}"),))
    count = len(first.recipe.interventions)
    assert low < found.result.price.drift.kl <= bound
    for mine, other in zip(first.recipe.tensors, found.recipe.tensors[:count], strict=True):
        assert all(torch.equal(mine[name], other[name]) for name in mine)
    changes = [(whole["change"], less["change"]) for whole, less in
               zip(free.recipe.tensors[count:], found.recipe.tensors[count:], strict=True)]  # fmt: skip
    share = float(changes[0][1].norm() / changes[0][0].norm())
    assert 0 < share < 1
    for whole, less in changes:
        torch.testing.assert_close(less, share * whole, atol=1e-6, rtol=1e-4)
