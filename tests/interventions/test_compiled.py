"""What torch.compile made of a model passes no edit by, and edits nothing once it is off."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from strop.anatomy import MatrixType, Stream, StreamSite, WeightSite
from strop.errors import UsageError
from strop.interventions import (
    LowRankEdit,
    Positions,
    RankReduction,
    SingularValuePruning,
    applied_interventions,
    attachments_of,
)
from strop.recipe import Recipe, attach

Tiny = Callable[..., nn.Module]
IDS = torch.arange(1, 9)[None]
STATES = LowRankEdit(StreamSite(0, Stream.MLP), "noreft", rank=2, positions=Positions.parse("all"))
INTERVENTIONS: dict[str, tuple[Any, dict[str, Tensor]]] = {
    "states": (STATES, {"basis": torch.ones(2, 32), "source": torch.zeros(2, 32), "bias": torch.ones(2)}),
    "a weight": (RankReduction(WeightSite(0, MatrixType.DOWN), rank_fraction=0.1), {}),
    "a new bias": (
        SingularValuePruning(WeightSite(0, MatrixType.DOWN), removed=(0,), bias="mean"),
        {"bias": torch.ones(32)},
    ),
    "a bias by position": (
        SingularValuePruning(WeightSite(0, MatrixType.DOWN), removed=(0,), bias="position"),
        {"bias": torch.ones(8, 32)},
    ),
}


@pytest.fixture(autouse=True)
def nothing_compiled() -> Iterator[None]:
    with torch.no_grad():
        yield
    torch.compiler.reset()


def logits(model: Any) -> Tensor:
    found: Tensor = model(input_ids=IDS, use_cache=False).logits
    return found


def assert_edited_only_while_it_is_on(name: str, compiled: Callable[[], Any], model: Any, reference: Any) -> None:
    intervention, tensors = INTERVENTIONS[name]
    plain = logits(reference)
    with applied_interventions(reference, [intervention], tensors=[tensors]):
        expected = logits(reference)
    assert not torch.allclose(plain, expected, atol=1e-3)
    run = compiled()
    torch.testing.assert_close(logits(run), plain, atol=1e-5, rtol=1e-5)
    with applied_interventions(model, [intervention], tensors=[tensors]):
        torch.testing.assert_close(logits(run), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(logits(run), plain, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", INTERVENTIONS)
def test_a_model_with_a_compiled_mlp_is_edited(name: str, tiny: Tiny) -> None:
    model: Any = tiny("llama", num_hidden_layers=1)
    reference = tiny("llama", num_hidden_layers=1)

    def compiled() -> Any:
        model.model.layers[0].mlp = torch.compile(model.model.layers[0].mlp, backend="eager")
        return model

    assert_edited_only_while_it_is_on(name, compiled, model, reference)


@pytest.mark.thorough
def test_a_compiled_function_that_calls_a_model_is_edited(tiny: Tiny) -> None:
    model: Any = tiny("llama", num_hidden_layers=1)

    def compiled() -> Any:
        return torch.compile(lambda **arguments: model(**arguments), backend="eager")

    assert_edited_only_while_it_is_on("states", compiled, model, tiny("llama", num_hidden_layers=1))


def test_a_model_that_was_compiled_as_a_whole_is_told_from_the_one_inside(tiny) -> None:
    model = tiny("llama")
    recipe = Recipe.of(model, [RankReduction(WeightSite(1, MatrixType.UP), rank_fraction=0.25)])
    with pytest.raises(
        UsageError, match=r"is what torch\.compile made of another; give the one inside, model\._orig_mod"
    ):
        attach(torch.compile(model, backend="eager"), recipe)
    assert not attachments_of(model)
