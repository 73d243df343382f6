"""Edits on quantised and offloaded models: hidden states are edited where they are, weights are left alone."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import accelerate
import pytest
import torch
from tests.fixtures.every_method import (
    EDITS,
    IDS,
    SITES,
    STATE_EDITS,
    AnyEdit,
    Edit,
    attached,
    every_method,
    logits,
)
from tests.fixtures.stored import CPU, DEVICE_MAP, offloaded, packed, quantised_by_torch
from torch import Tensor, nn

from strop.anatomy import MatrixType, StreamSite, WeightSite
from strop.checkpoints import identify
from strop.errors import InterventionError, UneditableWeightError
from strop.interventions import Head, LowRankEdit, Positions, RankReduction, attach_interventions
from strop.recipe import Recipe, applied, attach

Tiny = Callable[..., Any]
KINDS = ["memory", "disk", "map"]
UP = WeightSite(1, MatrixType.UP)


def learned(model: Any, layer: int = 1) -> Recipe:
    edit = LowRankEdit(StreamSite(layer), "loreft", rank=2, positions=Positions.parse("all"))
    drawn = edit.initial_tensors(32, init="paper", generator=torch.Generator().manual_seed(0))
    return Recipe.of(model, [edit], tensors=[drawn])


def written(model: Any) -> list[int]:
    found: Tensor = model.generate(IDS[:1], max_new_tokens=4, do_sample=False)
    return found[0].tolist()


def trained(model: Any, recipe: Recipe) -> Recipe:
    """Return a recipe after some steps on a model."""
    attachment = attach(model, recipe, trainable=True)
    optimizer = torch.optim.Adam([own for own in model.parameters() if own.requires_grad], lr=0.02)
    losses = []
    for _ in range(6):
        loss = model(IDS, labels=IDS).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] - 0.01
    found = recipe.learned_by(attachment)
    attachment.detach()
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_an_offloaded_model_is_edited_as_the_same_one_in_memory(kind: str, tiny: Tiny, tmp_path: Path) -> None:
    base, model = tiny("llama"), offloaded(tiny("llama"), kind, tmp_path)
    recipe, plain = learned(base), logits(model)
    with applied(base, recipe):
        expected, text = logits(base), written(base)
    hooks = [module._hf_hook for module in model.modules() if hasattr(module, "_hf_hook")]
    assert identify(model).fingerprint == recipe.base.fingerprint
    assert learned(model).matrices == recipe.matrices
    with applied(model, recipe):
        assert torch.equal(logits(model), expected)
        assert written(model) == text
    assert torch.equal(logits(model), plain)
    assert not torch.equal(plain, expected)
    assert [module._hf_hook for module in model.modules() if hasattr(module, "_hf_hook")] == hooks
    assert model.model.layers[1].mlp.up_proj.weight.is_meta
    assert not model.model.layers[1]._forward_hooks


@pytest.mark.parametrize("kind", KINDS)
def test_edits_on_an_offloaded_model_learn_are_saved_and_found_again(kind: str, tiny: Tiny, tmp_path: Path) -> None:
    base, model = tiny("llama"), offloaded(tiny("llama"), kind, tmp_path)
    asked = {name: own.requires_grad for name, own in model.named_parameters()}
    recipe = trained(model, learned(model))
    assert {name: own.requires_grad for name, own in model.named_parameters()} == asked
    assert torch.equal(recipe.tensors[0]["source"], trained(base, learned(base)).tensors[0]["source"])
    recipe.save(tmp_path / "edit")
    with applied(base, Recipe.load(tmp_path / "edit")):
        expected = logits(base)
    with applied(model, Recipe.load(tmp_path / "edit")):
        assert torch.equal(logits(model), expected)


@every_method
def test_offloaded_weights_are_left_alone_and_nothing_changes(edit: Edit, tiny: Tiny, tmp_path: Path) -> None:
    model = offloaded(tiny("llama"), "memory", tmp_path)
    plain = logits(model)
    with pytest.raises(UneditableWeightError, match=r"mlp\.up_proj\.weight is offloaded"):
        attached(model, [edit(UP)])
    assert torch.equal(logits(model), plain)


def test_weights_that_stayed_are_edited_beside_those_that_are_offloaded(tiny: Tiny, tmp_path: Path) -> None:
    base, model = tiny("llama"), offloaded(tiny("llama"), "map", tmp_path)
    recipe = Recipe.of(base, [EDITS["rank_reduction"](WeightSite(0, MatrixType.UP))])
    with applied(base, recipe):
        expected = logits(base)
    plain = logits(model)
    with applied(model, recipe):
        assert torch.equal(logits(model), expected)
    assert torch.equal(logits(model), plain)


def test_a_model_that_is_offloaded_with_an_edit_on_it_goes_on_being_edited(tiny: Tiny, tmp_path: Path) -> None:
    model = tiny("llama")
    plain, attachment = logits(model), attach(model, recipe := learned(model))
    expected = logits(model)
    accelerate.dispatch_model(model, DEVICE_MAP, main_device="cpu", offload_dir=str(tmp_path))
    assert torch.equal(logits(model), expected)
    attachment.detach()
    assert torch.equal(logits(model), plain)
    accelerate.hooks.remove_hook_from_submodules(model)
    assert model.model.layers[1].mlp.up_proj.weight.device == CPU
    recipe.check(model)


def test_an_edit_follows_its_module_to_where_that_runs(tiny: Tiny) -> None:
    model = tiny("llama")
    recipe = learned(model)
    moved = accelerate.hooks.AlignDevicesHook(execution_device=torch.device("meta"))
    accelerate.hooks.add_hook_to_module(model.model.layers[1].mlp.down_proj, moved)
    attachment = attach_interventions(model, recipe.interventions, tensors=recipe.tensors)
    places = {own.device.type for own in attachment.edits[0].parameters()}
    attachment.detach()
    assert places == {"meta"}


def test_a_head_that_is_offloaded_is_not_replaced(tiny_classifier: Tiny, tmp_path: Path) -> None:
    model = tiny_classifier("llama")
    head = Head.of(model, ("no", "yes"))
    accelerate.cpu_offload(model, execution_device=CPU)
    with pytest.raises(
        InterventionError,
        match=r"^score\.weight is offloaded, and a recipe that carries a head puts another in its place;",
    ):
        attach_interventions(model, [], head=head)


@pytest.mark.parametrize("edit", STATE_EDITS.values(), ids=STATE_EDITS)
def test_hidden_states_of_a_packed_model_are_edited_and_its_weights_left_alone(
    edit: AnyEdit, tiny: Tiny, tmp_path: Path
) -> None:
    model = packed(tiny("llama"))
    plain = logits(model)
    attachment = attached(model, [edit(site) for site in SITES])
    assert not torch.allclose(logits(model), plain, atol=1e-4)
    attachment.detach()
    assert torch.equal(logits(model), plain)


@every_method
def test_packed_weights_are_left_alone_and_the_others_edited(edit: Edit, tiny: Tiny) -> None:
    model = packed(tiny("llama"))
    plain = logits(model)
    with pytest.raises(UneditableWeightError, match=r"layers\.1\.mlp\.up_proj\.weight is quantised \(bitsandbytes\)"):
        attached(model, [edit(WeightSite(0, MatrixType.UP)), edit(UP)])
    assert torch.equal(logits(model), plain)
    attachment = attached(model, [edit(WeightSite(0, MatrixType.UP)), edit(WeightSite(1, MatrixType.QUERY))])
    assert not torch.equal(logits(model), plain)
    attachment.detach()
    assert torch.equal(logits(model), plain)


def test_edits_on_a_packed_model_learn_are_saved_and_found_again(tiny: Tiny, tmp_path: Path) -> None:
    model = packed(tiny("llama"))
    trained(model, learned(model)).save(tmp_path / "edit")
    again = packed(tiny("llama"))
    found = []
    for one in (model, again):
        with applied(one, Recipe.load(tmp_path / "edit")):
            found.append((logits(one).tolist(), written(one)))
    assert found[0] == found[1]


def test_what_torch_quantises_is_edited_known_by_its_numbers_and_not_trained(tiny: Tiny) -> None:
    model = quantised_by_torch(tiny("llama"))
    plain, recipe = logits(model), learned(model)
    with applied(model, recipe):
        assert not torch.allclose(logits(model), plain, atol=1e-4)
    assert torch.equal(logits(model), plain)
    with pytest.raises(
        InterventionError, match=r"q_proj is quantised by torch\.ao, which lets no gradient through, so nothing"
    ):
        attach(model, recipe, trainable=True)
    other = tiny("llama")
    with torch.no_grad():
        other.model.layers[1].mlp.down_proj.weight.mul_(2)
    assert learned(quantised_by_torch(other)).matrices != recipe.matrices
    assert learned(quantised_by_torch(tiny("llama"))).matrices == recipe.matrices


# The libraries themselves, where they are installed


def by_torchao(model: nn.Module, _: Path) -> Any:
    quantization = pytest.importorskip("torchao.quantization")
    chosen = quantization.Int8WeightOnlyConfig(version=2)
    quantization.quantize_(
        model, chosen, filter_fn=lambda module, name: isinstance(module, nn.Linear) and ".0." not in name
    )
    return model


def by_bitsandbytes(model: Any, folder: Path, **bits: bool) -> Any:
    pytest.importorskip("bitsandbytes")
    transformers = pytest.importorskip("transformers")
    model.save_pretrained(folder / "base")
    config = transformers.BitsAndBytesConfig(**bits, llm_int8_skip_modules=["lm_head", "model.layers.0"])
    return transformers.AutoModelForCausalLM.from_pretrained(folder / "base", quantization_config=config).eval()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("library", ["torchao", "4 bits", "8 bits"])
def test_real_quantised_models_learn_edits_of_hidden_states_and_keep_their_weights(
    library: str, tiny: Tiny, tmp_path: Path
) -> None:
    base = tiny("llama")
    if library == "torchao":
        model = by_torchao(base, tmp_path)
    else:
        model = by_bitsandbytes(base, tmp_path, **{f"load_in_{library[0]}bit": True})
    plain, wanted = logits(model), "torchao" if library == "torchao" else "bitsandbytes"
    with pytest.raises(UneditableWeightError, match=rf"up_proj\.weight is quantised \({wanted}\)"):
        Recipe.of(model, [RankReduction(UP, 0.25)])
    kept = Recipe.of(model, [RankReduction(WeightSite(0, MatrixType.UP), 0.25)])
    with applied(model, kept):
        assert not torch.equal(logits(model), plain)
    trained(model, learned(model)).save(tmp_path / "edit")
    with applied(model, Recipe.load(tmp_path / "edit")):
        assert not torch.allclose(logits(model), plain, atol=1e-4)
        written(model)
    assert torch.equal(logits(model), plain)
