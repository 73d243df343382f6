"""A training leaves the model, and everything around it, as it was."""

import dataclasses
import logging
import os
import signal
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers

from strop.training import TrainPlan
from strop.training.state import randomness
from strop.training.trainer import EditTrainer

pytestmark = pytest.mark.thorough

CHANGES: dict[str, dict[str, Any]] = {
    "plain": {},
    "bfloat16": {"precision": "bfloat16"},
    "activations computed again": {"gradient_checkpointing": True},
    "both": {"precision": "bfloat16", "gradient_checkpointing": True, "layers": (0,)},
}


def hooks_of(model: Any) -> dict[str, int]:
    """The hooks of every module, those of its backward pass included."""
    kinds = [name for name in vars(model) if name.endswith("_hooks")]
    return {
        f"{name}.{kind}": len(getattr(module, kind))
        for name, module in model.named_modules()
        for kind in kinds
        if getattr(module, kind, None)
    }


def state_of(model: Any) -> dict[str, Any]:
    """All that a training might leave behind, but for what the optimiser would change."""
    return {
        "gradients asked for": {name: parameter.requires_grad for name, parameter in model.named_parameters()},
        "gradients": {name: parameter.grad for name, parameter in model.named_parameters()},
        "modes": {name: module.training for name, module in model.named_modules()},
        "modules": [name for name, _ in model.named_modules()],
        "configuration": model.config.to_dict(),
        "generation": model.generation_config.to_dict(),
        "attributes": {name: sorted(vars(module)) for name, module in model.named_modules()},
        "forward": model.forward.__func__ is type(model).forward,
        "generate": model.generate.__func__ is type(model).generate,
        "hooks": hooks_of(model),
        "checkpointing": model.is_activation_checkpointing,
        "randomness": randomness(),
        "environment": dict(os.environ),
        "log level": (transformers.logging.get_verbosity(), logging.root.level),
        "interrupts": signal.getsignal(signal.SIGINT),
        "determinism": (torch.are_deterministic_algorithms_enabled(), torch.get_num_threads()),
        "threads": threading.active_count(),
        "gradient mode": torch.is_grad_enabled(),
        "default dtype": torch.get_default_dtype(),
    }


def unusual(model: Any) -> Any:
    """Give a model a state no training would choose."""
    model.train()
    model.lm_head.eval()
    model.config.use_cache = False
    model.model.layers[0].requires_grad_(False)
    return model


def usual(model: Any) -> Any:
    """Leave a model as it was loaded."""
    return model


@pytest.mark.parametrize(
    ("change", "prepare"),
    [*((change, unusual) for change in CHANGES), ("plain", usual), ("both", usual)],
)
def test_a_training_leaves_everything_as_it_was(
    training: Any, tiny: Any, bits: Any, plan: TrainPlan, change: str, prepare: Callable[[Any], Any]
) -> None:
    model = prepare(tiny("llama"))
    before, own_bits = state_of(model), bits(model)
    training(dataclasses.replace(plan, epochs=1, **CHANGES[change]), model=model)
    after = state_of(model)
    assert {name: after[name] for name in before if name != "attributes"} == {
        name: value for name, value in before.items() if name != "attributes"
    }
    assert after["attributes"] == before["attributes"]
    assert bits(model) == own_bits


@pytest.mark.parametrize(("change", "step"), [*((change, 0) for change in CHANGES), ("both", 13)])
def test_an_exception_leaves_everything_as_it_was_too(
    training: Any, tiny: Any, bits: Any, plan: TrainPlan, monkeypatch: Any, change: str, step: int
) -> None:
    compute = EditTrainer.compute_loss

    def computing(self: EditTrainer, *positional: Any, **named: Any) -> Any:
        if self.state.global_step == step:
            raise ZeroDivisionError
        return compute(self, *positional, **named)

    monkeypatch.setattr(EditTrainer, "compute_loss", computing)
    model = unusual(tiny("llama"))
    before, own_bits = state_of(model), bits(model)
    with pytest.raises(ZeroDivisionError):
        training(dataclasses.replace(plan, **CHANGES[change]), model=model)
    assert state_of(model) == before
    assert bits(model) == own_bits


def test_a_plan_the_model_cannot_follow_leaves_it_as_it_was(training: Any, tiny: Any, plan: TrainPlan) -> None:
    model = unusual(tiny("llama"))
    before = state_of(model)
    for changes, said in (
        ({"layers": (7,)}, "layer"),
        ({"rank": 33}, "rank"),
        ({"train_subspaces": ("a",)}, "subspace"),
    ):
        with pytest.raises(Exception, match=said):
            training(dataclasses.replace(plan, **changes), model=model)
    assert state_of(model) == before


def test_a_training_in_another_thread_is_the_same(training: Any, plan: TrainPlan) -> None:
    """Signals are the main thread's alone."""
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(training(dataclasses.replace(plan, epochs=1))))
    thread.start()
    thread.join()
    assert found[0].recipe == training(dataclasses.replace(plan, epochs=1)).recipe


def test_the_training_does_not_depend_on_the_randomness_it_finds(training: Any, plan: TrainPlan) -> None:
    plan = dataclasses.replace(plan, epochs=1, dropout=0.2)
    one = training(plan)
    torch.manual_seed(99)
    assert training(plan).recipe == one.recipe
