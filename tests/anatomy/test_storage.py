"""How a parameter is stored: what can be edited is told from what cannot, module by module."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import accelerate
import pytest
import torch
from tests.fixtures.stored import CPU, hold_in_bytes, hold_in_parts, offloaded, packed, quantised_by_torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune, weight_norm

from strop.anatomy import Anatomy, AskedForGradients, MatrixType, WeightSite, device_of, frozen, storage_of
from strop.errors import AnatomyError, UneditableWeightError

UP = WeightSite(1, MatrixType.UP)
Tiny = Callable[..., Any]


def float8(linear: nn.Linear) -> None:
    linear.weight = nn.Parameter(linear.weight.detach().to(torch.float8_e4m3fn), requires_grad=False)


def pack(linear: nn.Linear) -> None:
    del linear.weight
    linear.register_buffer("qweight", torch.zeros(4, 48, dtype=torch.int32))


def old_weight_norm(linear: nn.Linear) -> None:
    with pytest.warns(FutureWarning):
        weight_norm(linear)


WAYS: dict[str, tuple[Callable[[nn.Linear], object], str]] = {
    "integers": (hold_in_bytes, "quantised (int8)"),
    "eight-bit floats": (float8, "quantised (float8_e4m3fn)"),
    "packed integers": (pack, "quantised (int32)"),
    "a tensor of several parts": (hold_in_parts, "quantised (torchao)"),
    "a parametrisation": (parametrizations.weight_norm, "computed at each call (_WeightNorm)"),
    "weight norm": (old_weight_norm, "computed at each call"),
    "a mask": (lambda linear: prune.l1_unstructured(linear, "weight", 0.3), "computed at each call"),
    "no numbers": (lambda linear: linear.to("meta"), "without numbers"),
}


@pytest.mark.parametrize(("change", "said"), WAYS.values(), ids=WAYS)
def test_a_weight_that_is_stored_otherwise_is_refused_by_name_and_its_neighbours_are_not(
    change: Callable[[nn.Linear], object], said: str, tiny: Tiny
) -> None:
    model = tiny("llama")
    anatomy = Anatomy.of(model)
    change(model.model.layers[1].mlp.up_proj)
    assert str(storage_of(model, anatomy.module(model, UP), "weight")) == said
    with pytest.raises(UneditableWeightError) as caught:
        anatomy.parameter(model, UP)
    assert str(caught.value).startswith(f"model.layers.1.mlp.up_proj.weight is {said}")
    assert len(str(caught.value)) <= 220
    for site in (WeightSite(0, MatrixType.UP), WeightSite(1, MatrixType.DOWN)):
        assert storage_of(model, anatomy.module(model, site), "weight") is None
        assert anatomy.read_weight(model, site).is_floating_point()


def test_a_quantised_weight_is_refused_with_both_remedies(tiny: Tiny) -> None:
    model = packed(tiny("llama"))
    with pytest.raises(UneditableWeightError) as caught:
        Anatomy.of(model).parameter(model, UP)
    assert str(caught.value) == (
        "model.layers.1.mlp.up_proj.weight is quantised (bitsandbytes), and an edit of weights needs its real values; load "
        "the model dequantised or in its original precision, or edit hidden states, as LoReFT does."
    )
    assert Anatomy.of(model).read_weight(model, WeightSite(0, MatrixType.UP)).shape == (48, 32)


def test_what_torch_quantises_is_told_though_its_weight_is_a_method(tiny: Tiny) -> None:
    model = quantised_by_torch(tiny("llama"))
    with pytest.raises(UneditableWeightError, match=r"up_proj\.weight is quantised \(torch\.ao\)"):
        Anatomy.of(model).parameter(model, UP)


def test_a_parametrisation_that_was_made_permanent_can_be_edited(tiny: Tiny) -> None:
    model = tiny("llama")
    up = model.model.layers[1].mlp.up_proj
    parametrizations.weight_norm(up)
    parametrize.remove_parametrizations(up, "weight")
    assert Anatomy.of(model).parameter(model, UP) is up.weight


def test_a_module_without_such_a_parameter_is_another_matter(tiny: Tiny) -> None:
    model = tiny("llama")
    family = Anatomy.of(model).family
    model.model.layers[1].mlp.up_proj = nn.Identity()
    with pytest.raises(
        AnatomyError, match=r"layer 1 up: model\.layers\.1\.mlp\.up_proj has no weight; name the module"
    ):
        Anatomy.of(model, family=family).parameter(model, UP)


@pytest.mark.parametrize("kind", ["memory", "disk", "map"])
def test_offloaded_weights_are_told_from_those_that_stayed(kind: str, tiny: Tiny, tmp_path: Path) -> None:
    model = offloaded(tiny("llama"), kind, tmp_path)
    anatomy = Anatomy.of(model)
    assert str(storage_of(model, anatomy.module(model, UP), "weight")) == "offloaded"
    assert device_of(anatomy.module(model, UP)) == CPU
    assert device_of(model.model.layers[1]) == CPU
    with pytest.raises(UneditableWeightError, match=r"up_proj\.weight is offloaded to disk or memory.*as LoReFT does"):
        anatomy.parameter(model, UP)
    if kind == "map":
        assert anatomy.parameter(model, WeightSite(0, MatrixType.UP)).device == CPU


def test_a_module_that_holds_nothing_has_no_device() -> None:
    assert device_of(nn.Identity()) is None
    assert device_of(nn.Linear(2, 2, device="meta")) is None


def test_what_offloaded_parameters_asked_for_is_restored_though_they_are_others(tiny: Tiny) -> None:
    model = accelerate.cpu_offload(tiny("llama"), execution_device=CPU)
    model.model.layers[0].mlp.up_proj.weight.requires_grad_(False)
    before = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    ids = torch.arange(3, 9)[None]
    with frozen(model):
        assert not any(parameter.requires_grad for parameter in model.parameters())
        with torch.inference_mode():
            model(ids)
        old = model.model.layers[1].mlp.up_proj.weight
        assert old.is_inference()
    assert {name: parameter.requires_grad for name, parameter in model.named_parameters()} == before
    assert model.model.layers[1].mlp.up_proj.weight is not old
    assert model(ids).logits.requires_grad


def test_what_was_asked_for_first_is_what_is_restored() -> None:
    linear = nn.Linear(2, 2)
    asked = AskedForGradients()
    assert not asked
    asked.note(linear, [linear.weight])
    asked.ask_for_none()
    asked.note(linear)
    assert asked
    assert (linear.weight.requires_grad, linear.bias.requires_grad) == (False, True)
    asked.ask_for_none()
    asked.restore()
    assert (linear.weight.requires_grad, linear.bias.requires_grad) == (True, True)
    assert not asked
