"""An attached model saves its base, loads nothing that would be lost, and gives back all of it in any order of ends."""

import copy
import io
import warnings
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from tests.fixtures.every_method import (
    EDITS,
    SITES,
    AnyEdit,
    T,
    Tiny,
    any_method,
    applied,
    assert_restored,
    attached,
    logits,
    places,
    snapshot,
)
from torch import nn
from transformers import AutoModelForCausalLM

from strop.anatomy import WeightSite
from strop.errors import InterventionError, StropWarning
from strop.interventions import (
    Head,
    RankReduction,
    applied_interventions,
    attach_interventions,
    attachments_of,
)

QUARTER = RankReduction(SITES[1], rank_fraction=0.25)
WEIGHT = "model.layers.1.mlp.up_proj.weight"


@pytest.fixture
def model(tiny: Tiny) -> Any:
    return tiny("llama")


def saved(model: Any, folder: Path, **settings: Any) -> dict[str, torch.Tensor]:
    model.save_pretrained(folder, **settings)
    return AutoModelForCausalLM.from_pretrained(folder).state_dict()


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in found.items())


@any_method
def test_what_is_saved_while_an_edit_is_on_is_the_base(edit: AnyEdit, model: Any, tmp_path: Path) -> None:
    before = snapshot(model)
    with applied(model, [edit(SITES[1])]):
        assert_same(saved(model, tmp_path / "a"), before)
        assert_same(saved(model, tmp_path / "b", state_dict=model.state_dict()), before)
    assert "save_pretrained" not in vars(model)
    assert_same(saved(model, tmp_path / "c"), before)


def test_the_base_of_two_attachments_is_saved_whichever_comes_off_first(model: Any, tmp_path: Path) -> None:
    before = snapshot(model)
    first = attached(model, [QUARTER])
    second = attached(model, [RankReduction(SITES[2], rank_fraction=0.25)])
    assert_same(saved(model, tmp_path / "both"), before)
    first.detach()
    assert_same(saved(model, tmp_path / "second"), before)
    second.detach()
    assert "save_pretrained" not in vars(model)


def test_a_copy_saves_its_own_base(model: Any, tmp_path: Path) -> None:
    with applied(model, [QUARTER]):
        other = copy.deepcopy(model)
    with torch.no_grad():
        model.lm_head.weight.zero_()
    found = saved(other, tmp_path)
    assert torch.equal(found[WEIGHT], model.get_parameter(WEIGHT))
    assert bool(found["lm_head.weight"].any())


def test_a_pickled_model_saves_and_loads_what_it_has(model: Any, tmp_path: Path) -> None:
    with applied(model, [QUARTER]):
        edited, buffer = snapshot(model), io.BytesIO()
        torch.save(model, buffer)
    buffer.seek(0)
    found = torch.load(buffer, weights_only=False)
    assert_same(saved(found, tmp_path), edited)
    found.load_state_dict(snapshot(model))


@pytest.mark.parametrize("part", ["", "model", "model.layers.1.mlp.up_proj"])
def test_loading_other_numbers_into_an_edited_weight_is_refused_before_anything_is_loaded(
    part: str, model: Any
) -> None:
    with applied(model, [QUARTER]):
        edited = snapshot(model)
        module = model.get_submodule(part)
        with pytest.raises(InterventionError, match="what is loaded into it would be lost") as caught:
            module.load_state_dict({name: tensor + 1 for name, tensor in module.state_dict().items()})
        assert str(caught.value).startswith(f"{WEIGHT.removeprefix(part).lstrip('.')} is edited by a recipe")
        assert_same(snapshot(model), edited)
    model.load_state_dict({name: tensor + 1 for name, tensor in model.state_dict().items()})


def test_loading_what_is_there_already_or_was_there_before_changes_nothing(model: Any) -> None:
    before = snapshot(model)
    with applied(model, [QUARTER]):
        edited = snapshot(model)
        for state in (edited, before):
            model.load_state_dict(state)
            assert_same(snapshot(model), edited)
    assert_same(snapshot(model), before)


def test_no_numbers_are_loaded_under_weights_that_learn(model: Any) -> None:
    attachment = attached(model, [EDITS["spectrum"](SITES[1])], trainable=True)
    model.load_state_dict(model.state_dict())
    with pytest.raises(InterventionError, match="up_proj.weight is edited by a recipe"):
        model.load_state_dict({name: tensor + 1 for name, tensor in model.state_dict().items()})
    attachment.detach()


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")
@pytest.mark.parametrize("merge", ["merge_adapter", "unmerge_adapter", "merge_and_unload"])
def test_no_adapter_is_merged_while_a_recipe_edits_weights(merge: str, model: Any) -> None:
    settings = peft.LoraConfig(target_modules=["up_proj"], r=2, init_lora_weights=False)
    wrapped = peft.get_peft_model(model, settings)
    if merge == "unmerge_adapter":
        wrapped.merge_adapter()
    before = snapshot(wrapped)
    attachment = attach_interventions(model, [RankReduction(WeightSite(2, T.UP), rank_fraction=0.25)], outer=wrapped)
    edited = snapshot(wrapped)
    with pytest.raises(InterventionError, match="detach the recipe first"):
        getattr(wrapped, merge)()
    assert_same(snapshot(wrapped), edited)
    attachment.detach()
    assert_same(snapshot(wrapped), before)
    getattr(wrapped, merge)()


def test_blocks_may_end_in_the_order_they_began(model: Any) -> None:
    before, where = snapshot(model), places(model)
    other = RankReduction(SITES[2], rank_fraction=0.25)
    first, second = applied(model, [QUARTER]), applied(model, [other])
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    with applied(copy_of_base(model, before), [other]) as expected:
        assert torch.equal(logits(model), logits(expected))
    second.__exit__(None, None, None)
    assert_restored(model, before, where)


def copy_of_base(model: Any, before: dict[str, torch.Tensor]) -> Any:
    other = type(model)(model.config).eval()
    other.load_state_dict(before)
    return other


@pytest.mark.parametrize("later", ["rank_reduction", "spectrum in steps", "pruning with a mean bias"])
def test_blocks_on_the_same_weight_that_end_in_the_wrong_order_are_refused_and_all_comes_off(
    later: str, model: Any
) -> None:
    before, where = snapshot(model), places(model)
    first = applied(model, [EDITS["pruning with a mean bias"](SITES[1])])
    second = applied(model, [EDITS[later](SITES[1])])
    first.__enter__()
    second.__enter__()
    edited = snapshot(model)
    with pytest.raises(InterventionError, match="detach that one first: this one stays on until then"):
        first.__exit__(None, None, None)
    assert_same(snapshot(model), edited)
    second.__exit__(None, None, None)
    assert attachments_of(model) == ()
    assert_restored(model, before, where)


def test_what_learns_below_another_that_learns_does_not_come_off_first(model: Any) -> None:
    asked = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    first, second = (attached(model, [EDITS["spectrum"](site)], trainable=True) for site in SITES[1:])
    with pytest.raises(InterventionError, match="detach that one first"):
        first.detach()
    second.detach()
    first.detach()
    assert {name: parameter.requires_grad for name, parameter in model.named_parameters()} == asked


def test_a_head_that_is_on_is_not_saved_as_the_models_own(tiny_classifier: Tiny, tmp_path: Path) -> None:
    model: Any = tiny_classifier("llama", 2)
    before = snapshot(model)
    own = Head.of(model, ("no", "yes"))
    head = own.with_tensors({name: tensor + 1 for name, tensor in own.tensors.items()})
    with applied_interventions(model, [], head=head):
        model.save_pretrained(tmp_path)
    found = type(model).from_pretrained(tmp_path)
    assert isinstance(found, nn.Module)
    assert_same(found.state_dict(), before)


# Weights that are changed while they are edited


def trained(model: Any) -> None:
    """A step of training of all of a model's weights."""
    model.train()
    ids = torch.arange(1, 9)[None]
    model(input_ids=ids, labels=ids).loss.backward()
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    model.zero_grad()
    model.eval()


def merged(model: Any) -> None:
    """A LoRA of the edited weight, made while the recipe is on, and merged."""
    config = peft.LoraConfig(target_modules=["up_proj"], init_lora_weights=False, r=2)
    peft.get_peft_model(model, config).merge_and_unload()


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")
@pytest.mark.parametrize("change", [trained, merged])
def test_an_edited_weight_that_is_changed_is_not_saved_and_its_loss_is_said(
    change: Any, model: Any, tmp_path: Path
) -> None:
    said = f"{WEIGHT} was changed after a recipe had edited it, by training or by a merge, and"
    remedy = "bake the recipe, and train or merge the checkpoint."
    before = snapshot(model)
    attachment = attached(model, [QUARTER])
    change(model)
    with pytest.raises(InterventionError) as refused:
        model.save_pretrained(tmp_path / "mixture")
    assert str(refused.value) == f"{said} the base that is saved knows nothing of that; {remedy}"
    assert not (tmp_path / "mixture").exists()
    with pytest.warns(StropWarning) as noted:
        attachment.detach()
    assert [str(one.message) for one in noted if one.category is StropWarning] == [
        f"{said} that is lost with the recipe's end; {remedy}"
    ]
    assert torch.equal(model.state_dict()[WEIGHT], before[WEIGHT])


def test_what_leaves_an_edited_weight_as_it_is_is_no_change(model: Any, tmp_path: Path) -> None:
    before = snapshot(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error", StropWarning)
        with applied(model, [QUARTER]):
            model.load_state_dict(model.state_dict())
            with applied_interventions(model, [RankReduction(SITES[1], rank_fraction=0.1)]):
                saved(model, tmp_path / "two on one weight")
            with torch.no_grad():
                model.lm_head.weight.add_(1)  # which the recipe does not edit
        with applied(model, [QUARTER]):
            model.bfloat16()
        copied = attached(copy.deepcopy(model), [QUARTER])
        copied.detach()
    assert torch.equal(model.state_dict()[WEIGHT], before[WEIGHT].bfloat16())
    assert torch.equal(model.lm_head.weight, (before["lm_head.weight"] + 1).bfloat16())


def test_a_copy_of_an_edited_model_is_as_it_was_left(model: Any) -> None:
    attachment = attached(model, [QUARTER])
    other = copy.deepcopy(model)
    trained(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error", StropWarning)
        attachments_of(other)[0].detach()
    with pytest.warns(StropWarning, match="was changed after a recipe had edited it"):
        attachment.detach()


def test_a_parameter_put_in_the_place_of_an_edited_one_is_told(model: Any) -> None:
    attachment = attach_interventions(model, [QUARTER])
    other = nn.Parameter(torch.zeros(48, 32))
    model.model.layers[1].mlp.up_proj.weight = other
    with pytest.warns(StropWarning, match=rf"^{WEIGHT} was replaced by another parameter after a recipe had edited it"):
        attachment.detach()
    assert model.model.layers[1].mlp.up_proj.weight is other
