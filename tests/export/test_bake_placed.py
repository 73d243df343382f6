"""Baking a model that is quantised in part, offloaded, or stored in a way no checkpoint holds."""

import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.fixtures.every_method import logits
from tests.fixtures.stored import hold_in_parts, offloaded
from torch.nn.utils import parametrizations
from transformers import AutoModelForCausalLM

from strop.anatomy import MatrixType, WeightSite
from strop.errors import InterventionError
from strop.export import bake
from strop.interventions import RankReduction
from strop.recipe import Recipe, applied

EDIT = RankReduction(WeightSite(0, MatrixType.UP), rank_fraction=0.25)
Tiny = Callable[..., Any]


@pytest.mark.filterwarnings("ignore:Attempting to save a model with offloaded modules")
@pytest.mark.parametrize("tied", [False, True])
def test_a_model_placed_by_a_device_map_is_baked_from_its_files(tied: bool, tiny: Tiny, tmp_path: Path) -> None:
    model = offloaded(tiny("llama", tie_word_embeddings=tied).bfloat16(), "map", tmp_path)
    recipe = Recipe.of(model, [EDIT])
    with applied(model, recipe):
        expected = logits(model)
    bake(model, recipe, tmp_path / "baked")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "baked").eval()
    assert torch.equal(logits(loaded), expected)
    assert loaded.dtype == torch.bfloat16
    assert (loaded.lm_head.weight is loaded.model.embed_tokens.weight) == tied


def test_blocks_that_are_offloaded_by_hand_are_baked_too(tiny: Tiny, tmp_path: Path) -> None:
    model = tiny("llama")
    offloaded(model.model.layers[1], "memory", tmp_path)
    recipe = Recipe.of(model, [EDIT])
    with applied(model, recipe):
        expected = logits(model)
    bake(model, recipe, tmp_path / "baked")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "baked").eval()
    assert torch.equal(logits(loaded), expected)


def test_what_transformers_cannot_save_is_refused_with_the_remedy(tiny: Tiny, tmp_path: Path) -> None:
    model = tiny("llama")
    model.hf_quantizer = types.SimpleNamespace(
        is_serializable=lambda: False, quantization_config=types.SimpleNamespace(quant_method="gguf")
    )
    with pytest.raises(
        InterventionError, match=r"is quantised \(gguf\) in a way that transformers cannot save; load it deq"
    ):
        bake(model, Recipe.of(model, [EDIT]), tmp_path / "baked")
    assert not (tmp_path / "baked").exists()


def test_a_weight_that_is_computed_is_refused_for_no_tool_would_find_it(tiny: Tiny, tmp_path: Path) -> None:
    model = tiny("llama")
    parametrizations.weight_norm(model.model.layers[1].mlp.up_proj)
    with pytest.raises(InterventionError, match=r"up_proj\.weight is computed at each call .* make it permanent first"):
        bake(model, Recipe.of(model, [EDIT]), tmp_path / "baked")
    assert not (tmp_path / "baked").exists()


def test_numbers_in_several_parts_are_left_to_whoever_packed_them(tiny: Tiny, tmp_path: Path) -> None:
    model = tiny("llama")
    hold_in_parts(model.model.layers[1].mlp.up_proj)
    recipe = Recipe.of(model, [EDIT])
    with pytest.MonkeyPatch.context() as patch:
        kept: dict[str, Any] = {}
        patch.setattr(type(model), "save_pretrained", lambda own, folder, state_dict: kept.update(state_dict))
        bake(model, recipe, tmp_path / "baked")
    assert type(kept["model.layers.1.mlp.up_proj.weight"]).__name__ == "AffineQuantizedTensor"
