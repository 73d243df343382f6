"""Training on bases that are quantised or offloaded: what learns is beside them."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.fixtures.stored import offloaded, packed
from tests.training.conftest import write_planted

from strop.tasks import load_task
from strop.training import TrainPlan, train


@pytest.mark.parametrize("kind", ["packed", "memory"])
def test_edits_of_hidden_states_are_trained_beside_a_base_that_is(
    kind: str, plan: TrainPlan, tiny: Callable[..., Any], small_tokenizer: Any, tmp_path: Path
) -> None:
    model = packed(tiny("llama")) if kind == "packed" else tiny("llama")
    if kind == "memory":
        offloaded(model.model.layers[2], kind, tmp_path)
    asked = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    task = load_task(write_planted(tmp_path, splits="{train: 0.1, select: 0.1, test: 0.1, seed: 0}"))
    outcome = train(model, small_tokenizer, task, dataclasses.replace(plan, layers=(2,), epochs=1))
    assert all(tensor.isfinite().all() for own in outcome.recipe.tensors for tensor in own.values())
    assert getattr(model, "is_quantized", False) == (kind == "packed")
    assert {name: parameter.requires_grad for name, parameter in model.named_parameters()} == asked
