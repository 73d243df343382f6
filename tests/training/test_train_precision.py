"""Narrow numbers and activations computed again: edits stay float32, and losses what they were."""

import dataclasses
from typing import Any

import pytest
import torch

import strop
from strop.anatomy import Anatomy, Stream
from strop.proving import DriftFromBase, DriftText, Guard
from strop.scoring import DriftScorer
from strop.training import TrainPlan
from strop.training.trainer import EditTrainer

pytestmark = pytest.mark.thorough


def dtypes_of(recipe: Any) -> set[torch.dtype]:
    return {tensor.dtype for tensors in recipe.tensors for tensor in tensors.values()}


@pytest.fixture
def optimised(monkeypatch: pytest.MonkeyPatch) -> set[torch.dtype]:
    """The dtypes of all that is optimised and of the optimiser's own states."""
    found: set[torch.dtype] = set()
    compute = EditTrainer.compute_loss

    def computing(self: EditTrainer, *positional: Any, **named: Any) -> Any:
        groups, state = self.optimizer.param_groups, self.optimizer.state
        found.update(parameter.dtype for group in groups for parameter in group["params"])
        found.update(tensor.dtype for entry in state.values() for tensor in entry.values())
        return compute(self, *positional, **named)

    monkeypatch.setattr(EditTrainer, "compute_loss", computing)
    return found


@pytest.mark.parametrize(
    ("family", "loaded"),
    [
        ("llama", torch.float32),
        ("llama", torch.bfloat16),
        ("gpt2", torch.float32),
        ("gpt_neox", torch.bfloat16),
    ],
)
def test_training_in_bfloat16_learns_edits_in_float32(
    training: Any, tiny: Any, seen: Any, optimised: Any, plan: TrainPlan, family: str, loaded: torch.dtype
) -> None:
    autocast = {"precision": "bfloat16"} if loaded == torch.float32 else {}
    found = training(dataclasses.replace(plan, **autocast), model=tiny(family).to(loaded))
    assert dtypes_of(found.recipe) == optimised == {torch.float32}
    losses = [loss for _, loss in seen.losses]
    assert sum(losses[-12:]) / 12 < sum(losses[:12]) / 12 - 0.3
    assert found.result.edited["select"].loss < found.result.base["select"].loss - 1
    assert seen.worst_frame < 1e-5


def test_bfloat16_computes_other_numbers_than_float32(training: Any, seen: Any, plan: TrainPlan) -> None:
    training(dataclasses.replace(plan, epochs=1))
    wide = [loss for _, loss in seen.losses]
    seen.losses.clear()
    training(dataclasses.replace(plan, epochs=1, precision="bfloat16"))
    narrow = [loss for _, loss in seen.losses]
    assert narrow != wide
    assert narrow == pytest.approx(wide, rel=0.05)


@pytest.mark.parametrize(
    ("family", "stream"),
    [*(("llama", stream) for stream in Stream), ("gpt2", Stream.ATTENTION), ("gpt_neox", Stream.BLOCK)],
)
def test_activations_computed_again_give_the_same_losses(
    training: Any, tiny: Any, seen: Any, plan: TrainPlan, family: str, stream: Stream
) -> None:
    plan = dataclasses.replace(plan, stream=stream, layers=(0, 2), epochs=1)
    kept = training(plan, family=family)
    expected = list(seen.losses)
    seen.losses.clear()
    again = training(dataclasses.replace(plan, gradient_checkpointing=True), family=family)
    assert [loss for _, loss in seen.losses] == pytest.approx([loss for _, loss in expected], rel=1e-5)
    for mine, theirs in zip(kept.recipe.tensors, again.recipe.tensors, strict=True):
        for name in mine:
            torch.testing.assert_close(mine[name], theirs[name], rtol=1e-3, atol=1e-4)


def test_activations_are_computed_again_and_not_kept(training: Any, tiny: Any, plan: TrainPlan) -> None:
    model, calls = tiny("llama"), []
    model.model.layers[2].mlp.register_forward_pre_hook(lambda *_: calls.append(torch.is_grad_enabled()))
    plan = dataclasses.replace(plan, epochs=1, layers=(0,))
    training(plan, model=model)
    once = calls.count(True)
    calls.clear()
    training(dataclasses.replace(plan, gradient_checkpointing=True), model=model)
    assert calls.count(True) == 2 * once


@pytest.mark.parametrize("reused", [2**30, 0])
def test_activations_are_computed_again_above_a_reused_prefix(
    training: Any, seen: Any, plan: TrainPlan, reused: int
) -> None:
    plan = dataclasses.replace(plan, layers=(2,), epochs=2, prefix_budget_bytes=reused)
    training(plan)
    expected = [loss for _, loss in seen.losses]
    seen.losses.clear()
    training(dataclasses.replace(plan, gradient_checkpointing=True))
    assert [loss for _, loss in seen.losses] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("again", [False, True])
def test_no_gradient_is_asked_for_below_the_lowest_edit(training: Any, tiny: Any, plan: TrainPlan, again: bool) -> None:
    model, asked = tiny("llama"), set()
    model.model.layers[1].register_forward_hook(lambda _module, _given, output: asked.add(output.requires_grad))
    plan = dataclasses.replace(plan, layers=(2,), epochs=1, prefix_budget_bytes=0, gradient_checkpointing=again)
    training(plan, model=model)
    assert asked == {False}


def test_epochs_are_compared_in_the_precision_the_choice_is_scored_in(
    training: Any, tiny: Any, small_tokenizer: Any, planted: Any, plan: TrainPlan
) -> None:
    found = training(dataclasses.replace(plan, precision="bfloat16", epochs=2))
    model = tiny("llama")
    with strop.applied(model, found.recipe):
        again = strop.evaluate(model, small_tokenizer, planted, split="select")
    assert again.figures == found.result.edited["select"]


def test_a_guard_on_drift_reads_in_the_precision_the_choice_is_scored_in(
    training: Any, tiny: Any, small_tokenizer: Any, plan: TrainPlan
) -> None:
    guards = [Guard(DriftFromBase(), 1e9)]
    found = training(dataclasses.replace(plan, precision="bfloat16", epochs=2), guards=guards)
    model = tiny("llama")
    anatomy = Anatomy.of(model)
    scorer = DriftScorer(model, DriftText().texts(model, small_tokenizer, anatomy=anatomy), anatomy=anatomy)
    with strop.applied(model, found.recipe):
        assert found.result.price.drift.kl == pytest.approx(scorer.read().kl, rel=1e-5)
