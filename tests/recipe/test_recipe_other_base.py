"""A recipe belongs to the model it was made for; another is refused with the first difference."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.fixtures.recipes import EDITS, Tiny, logits
from torch import nn

from strop.errors import BaseMismatchError, SiteError
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
    return tiny("llama").bfloat16()


def wider(tiny: Tiny) -> nn.Module:
    return tiny("llama", intermediate_size=64)


def with_fewer_heads(tiny: Tiny) -> nn.Module:
    return tiny("llama", num_key_value_heads=1)


@pytest.mark.parametrize(
    ("make", "edits", "difference"),
    [
        (shorter, EDITS, "The recipe edits layer 1 up, and this model has only 1 layers"),
        (with_other_weights, EDITS, r"layer 0 query is not the matrix .*: its fingerprint is \w{32}, not \w{32}"),
        (with_another_dtype, EDITS, "layer 1 up is not the matrix .*: its dtype is bfloat16, not float32"),
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
