"""A recipe belongs to the model it was made for; another is refused with the first difference."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.fixtures.recipes import EDITS, Tiny, logits
from torch import nn

from strop.errors import BaseMismatchError, RecipeError, SiteError, StropWarning
from strop.interventions import RankReduction, attachments_of
from strop.recipe import Recipe, applied, attach


def test_another_architecture_is_refused_by_both_names(llama: nn.Module, tiny: Tiny) -> None:
    with pytest.raises(
        BaseMismatchError,
        match=r"made for LlamaForCausalLM, a LlamaForCausalLM, and this model is a GPT2LMHeadModel; load Llama.*force=True",
    ):
        attach(tiny("gpt2"), Recipe.of(llama, EDITS))


def shorter(tiny: Tiny) -> nn.Module:
    return tiny("llama", num_hidden_layers=1)


def with_other_weights(tiny: Tiny) -> nn.Module:
    model = tiny("llama")
    with torch.no_grad():
        model.model.layers[0].self_attn.q_proj.weight.view(torch.int32)[0, 0] ^= 1
    return model


def with_another_dtype(tiny: Tiny) -> nn.Module:
    return tiny("llama").double()


def wider(tiny: Tiny) -> nn.Module:
    return tiny("llama", intermediate_size=64)


def with_fewer_heads(tiny: Tiny) -> nn.Module:
    return tiny("llama", num_key_value_heads=1)


@pytest.mark.parametrize(
    ("make", "edits", "difference"),
    [
        (shorter, EDITS, "The recipe edits layer 1 up, and this model has only 1 layers"),
        (with_other_weights, EDITS, r"layer 0 query is not the matrix .*: its fingerprint is \w{32}, not \w{32}"),
        (with_another_dtype, EDITS, "layer 1 up is not the matrix .*: its dtype is float64, not float32"),
        (wider, EDITS, r"layer 1 up is not the matrix .*: its shape is \(64, 32\), not \(48, 32\)"),
        (with_fewer_heads, EDITS[2:], "layer 2 value head 1: the value matrix has heads 0 to 0"),
    ],
)
def test_another_base_is_refused_with_the_first_difference_and_left_alone(
    make: Callable[[Tiny], nn.Module],
    edits: tuple[RankReduction, ...],
    difference: str,
    tiny: Tiny,
    tmp_path: Path,
) -> None:
    Recipe.of(tiny("llama"), edits).save(tmp_path / "facts")
    other = make(tiny)
    plain = logits(other)
    with pytest.raises(
        BaseMismatchError, match=rf"{difference}; load LlamaForCausalLM, or pass force=True \(--force\)"
    ):
        attach(other, Recipe.load(tmp_path / "facts"))
    assert torch.equal(logits(other), plain)
    assert attachments_of(other) == ()


@pytest.mark.parametrize("make", [with_other_weights, with_another_dtype, wider])
def test_force_puts_it_on_another_base_all_the_same(make: Callable[[Tiny], nn.Module], tiny: Tiny) -> None:
    recipe = Recipe.of(tiny("llama"), EDITS)
    other = make(tiny)
    plain = logits(other)
    with applied(other, recipe, force=True):
        assert not torch.equal(logits(other), plain)
    assert torch.equal(logits(other), plain)


def test_force_cannot_find_a_layer_that_is_not_there(tiny: Tiny) -> None:
    recipe = Recipe.of(tiny("llama"), EDITS)
    with pytest.raises(SiteError, match="layer 1 up: this model has layers 0 to 0"):
        attach(shorter(tiny), recipe, force=True)


def test_weights_a_recipe_does_not_edit_may_differ(llama: nn.Module) -> None:
    """A recipe is about its matrices: one made before a fine-tuned LM head still fits."""
    recipe = Recipe.of(llama, EDITS)
    with torch.no_grad():
        llama.lm_head.weight += 1
    with applied(llama, recipe) as edited:
        assert edited is llama


# The same base in a narrower dtype


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("factored", [False, True])
def test_a_recipe_of_the_float32_base_applies_to_the_same_base_in_a_narrower_dtype_with_a_note(
    dtype: torch.dtype, factored: bool, tiny: Tiny, tmp_path: Path
) -> None:
    model = tiny("llama")
    recipe = Recipe.of(model, EDITS)
    (recipe.with_factors(model) if factored else recipe).save(tmp_path / "facts")
    with applied(model, recipe):
        wanted = logits(model)
    narrow = model.to(dtype)
    plain = logits(narrow)
    with (
        pytest.warns(StropWarning, match=rf"made for LlamaForCausalLM in float32, .* same base in {str(dtype)[6:]}: "),
        applied(narrow, Recipe.load(tmp_path / "facts")),
    ):
        assert (logits(narrow).float() - wanted).abs().max() < (wanted - plain.float()).abs().max() / 10
    assert torch.equal(logits(narrow), plain)


def test_a_note_is_no_part_of_applying_it_to_the_very_base(llama: nn.Module) -> None:
    recipe = Recipe.of(llama, EDITS)
    assert recipe.check(llama) is None
    with applied(llama, recipe):
        pass


def test_another_base_in_a_narrower_dtype_is_refused(tiny: Tiny) -> None:
    recipe = Recipe.of(tiny("llama"), EDITS)
    other = tiny("llama")
    with torch.no_grad():
        other.model.layers[1].mlp.up_proj.weight[0, 0] *= 1.05
    with pytest.raises(BaseMismatchError, match="layer 1 up is not the matrix .*: its dtype is bfloat16, not float32"):
        attach(other.bfloat16(), recipe)


def test_a_recipe_that_says_nothing_of_narrower_dtypes_keeps_the_strict_rule(tiny: Tiny) -> None:
    recipe = Recipe.of(tiny("llama"), EDITS)
    older = dataclasses.replace(recipe, matrices=tuple(dataclasses.replace(m, rounded={}) for m in recipe.matrices))
    with pytest.raises(BaseMismatchError, match="its dtype is bfloat16, not float32"):
        attach(tiny("llama").bfloat16(), older)


def test_a_recipe_of_a_narrow_base_is_not_one_of_the_wide_base(tiny: Tiny) -> None:
    recipe = Recipe.of(tiny("llama").bfloat16(), EDITS)
    assert "rounded" not in recipe.matrices[0].to_json()
    with pytest.raises(BaseMismatchError, match="its dtype is float32, not bfloat16"):
        attach(tiny("llama"), recipe)


def test_every_matrix_identity_of_one_matrix_is_compared(llama: nn.Module) -> None:
    """A second entry of the same matrix cannot say something else of it."""
    twice = Recipe.of(llama, [EDITS[0], RankReduction(EDITS[0].site, rank_fraction=0.1)])
    other = dataclasses.replace(twice.matrices[1], fingerprint="0" * 32)
    with pytest.raises(BaseMismatchError, match=f"layer 1 up is not .*: its fingerprint is .*, not {'0' * 32}"):
        dataclasses.replace(twice, matrices=(twice.matrices[0], other)).check(llama)


def test_forced_factors_of_another_base_are_taken_as_they_are(tiny: Tiny, tmp_path: Path) -> None:
    model = tiny("llama")
    Recipe.of(model, EDITS).with_factors(model).save(tmp_path / "facts")
    tensors = load_file(tmp_path / "facts" / "tensors.safetensors")
    tensors["0.left"] = torch.ones_like(tensors["0.left"])
    save_file(tensors, tmp_path / "facts" / "tensors.safetensors")
    recipe = Recipe.load(tmp_path / "facts")
    with pytest.raises(RecipeError, match="entry 0: layer 1 up: the recipe's left and right are not the components"):
        attach(model, recipe)
    with applied(model, recipe, force=True):
        pass
