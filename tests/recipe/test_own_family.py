"""A recipe for an architecture that only its user has described."""

from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from strop.anatomy import Family, MatrixType, Spelling, WeightSite
from strop.export import bake
from strop.interventions import RankReduction
from strop.recipe import Recipe, applied, attach, detach

OPT = Family("OPT", ("opt",), "model.decoder.layers", {MatrixType.UP: Spelling("fc1")})
EDIT = RankReduction(WeightSite(1, MatrixType.UP), rank_fraction=0.25)
IDS = torch.arange(1, 9)[None]


@pytest.fixture
def opt() -> torch.nn.Module:
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        "opt", hidden_size=32, num_hidden_layers=2, num_attention_heads=4, ffn_dim=48, word_embed_proj_dim=32,
        vocab_size=320,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        model.model.decoder.layers[1].fc1.weight.normal_()
        model.model.decoder.layers[1].fc2.weight.normal_()
    return model


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS, use_cache=False).logits


def test_a_described_architecture_is_edited_saved_and_baked_like_any_other(
    opt: torch.nn.Module, tmp_path: Path
) -> None:
    plain = logits(opt)
    recipe = Recipe.of(opt, [EDIT], family=OPT)
    recipe.with_factors(opt, family=OPT).save(tmp_path / "facts")
    with applied(opt, Recipe.load(tmp_path / "facts"), family=OPT):
        expected = logits(opt)
    assert not torch.allclose(expected, plain, atol=1e-3)
    attach(opt, recipe, family=OPT)
    torch.testing.assert_close(logits(opt), expected, atol=1e-4, rtol=1e-4)
    detach(opt)
    assert torch.equal(logits(opt), plain)
    bake(opt, recipe, tmp_path / "baked", family=OPT)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "baked").eval()
    torch.testing.assert_close(logits(loaded), expected, atol=1e-4, rtol=1e-4)


def test_a_recipe_made_by_a_description_is_attached_to_what_is_read_alike(opt: torch.nn.Module) -> None:
    recipe = Recipe.of(opt, [EDIT], family=OPT)
    assert recipe == Recipe.of(opt, [EDIT])
    attach(opt, recipe).detach()
