"""A low-rank edit's precision and its dropout: what is computed in float32, and what is left out at random."""

from collections.abc import Callable

import pytest
import torch
from tests.fixtures.every_method import SITES, AnyEdit, any_method, applied, attached, logits
from tests.fixtures.low_rank import (
    IDS,
    SIZE,
    Tiny,
    edit_of,
    every_method,
    random_tensors,
    states_of,
)
from torch import nn

from strop.interventions import (
    EditModule,
    attach_interventions,
    prompt_lengths,
)


@pytest.mark.parametrize("cast", [lambda m: m.to(torch.bfloat16), lambda m: m.half(), lambda m: m.bfloat16()])
def test_parameters_stay_in_float32_when_the_model_is_cast(cast: Callable[[nn.Module], nn.Module], tiny: Tiny) -> None:
    model, edit = tiny("llama"), edit_of()
    tensors = random_tensors(edit, 32, dtype=torch.float32)
    attachment = attach_interventions(model, [edit], tensors=[tensors], trainable=True)
    (module,) = attachment.edits
    before = {name: id(parameter) for name, parameter in module.named_parameters()}
    cast(model)
    assert model.dtype != torch.float32
    assert {parameter.dtype for parameter in module.parameters()} == {torch.float32}
    assert {name: id(parameter) for name, parameter in module.named_parameters()} == before
    assert all(torch.equal(kept, tensors[name]) for name, kept in module.tensors.items())
    with prompt_lengths([6]):
        output = model(input_ids=IDS).logits
    assert output.dtype == model.dtype
    output.float().square().mean().backward()
    assert all(
        parameter.grad is not None and parameter.grad.dtype == torch.float32 for parameter in module.parameters()
    )
    attachment.detach()


@every_method
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_states_keep_their_dtype_and_the_edit_is_computed_in_float32(method: str, dtype: torch.dtype) -> None:
    edit = edit_of(method)
    module = EditModule(edit, random_tensors(edit, dtype=torch.float32), SIZE)
    states = states_of().to(dtype)
    found = module(states)
    assert found.dtype == dtype
    assert torch.equal(found, module(states.float()).to(dtype))


@every_method
def test_autocast_changes_nothing_inside_the_edit(method: str) -> None:
    edit = edit_of(method)
    module = EditModule(edit, random_tensors(edit, dtype=torch.float32), SIZE)
    states = states_of(dtype=torch.float32)
    expected = module(states)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(module(states), expected)


def test_a_model_under_autocast_runs_and_learns(tiny: Tiny) -> None:
    model, edit = tiny("gpt2"), edit_of()
    attachment = attach_interventions(model, [edit], tensors=[random_tensors(edit, 32)], trainable=True)
    labels = IDS.clone()
    labels[:, :5] = -100
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(input_ids=IDS, attention_mask=torch.ones_like(IDS), labels=labels).loss
    loss.backward()
    gradients = [parameter.grad for parameter in model.parameters() if parameter.requires_grad]
    assert len(gradients) == 3
    assert all(gradient is not None and bool(torch.isfinite(gradient).all()) for gradient in gradients)
    attachment.detach()


# Dropout


def test_dropout_falls_on_the_edit_and_not_on_the_state() -> None:
    edit = edit_of("lobireft")
    module = EditModule(edit, random_tensors(edit, dtype=torch.float32), SIZE).train()
    states = states_of(500, dtype=torch.float32)
    change = module(states) - states
    module.dropout = 0.25
    torch.manual_seed(0)
    found = module(states)
    dropped = found == states
    assert float(dropped.float().mean()) == pytest.approx(0.25, abs=0.02)
    torch.testing.assert_close((found - states)[~dropped], change[~dropped] / 0.75, atol=1e-5, rtol=1e-4)


def test_dropout_on_the_state_falls_on_the_sum_as_published() -> None:
    edit = edit_of("lobireft")
    module = EditModule(edit, random_tensors(edit, dtype=torch.float32), SIZE).train()
    states = states_of(500, dtype=torch.float32)
    whole = module(states)
    module.dropout, module.drops_state = 0.25, True
    torch.manual_seed(0)
    found = module(states)
    assert float((found == 0).float().mean()) == pytest.approx(0.25, abs=0.02)
    torch.testing.assert_close(found[found != 0], (whole / 0.75)[found != 0])


@pytest.mark.parametrize("drops_state", [False, True])
def test_dropout_is_off_outside_training(drops_state: bool) -> None:
    edit = edit_of()
    module = EditModule(edit, random_tensors(edit), SIZE).eval()
    expected = module(states_of())
    module.dropout, module.drops_state = 0.9, drops_state
    assert torch.equal(module(states_of()), expected)


@any_method
def test_what_is_attached_under_autocast_is_what_is_attached_without(edit: AnyEdit, tiny: Tiny) -> None:
    model = tiny("llama")
    with applied(model, [edit(SITES[1])]):
        expected = logits(model)
    with torch.autocast("cpu", torch.bfloat16):
        attachment = attached(model, [edit(SITES[1])])
    assert torch.equal(logits(model), expected)
    attachment.detach()
