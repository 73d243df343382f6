"""A recipe as an adapter of PEFT's: what PEFT makes of it is the model with the recipe on."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file
from tests.fixtures.every_method import factors
from tests.fixtures.recipes import EDITS, logits
from torch import nn

from strop.anatomy import Anatomy, MatrixType, StreamSite, WeightSite
from strop.errors import BaseMismatchError, InterventionError, StropWarning, UsageError
from strop.export import export_peft
from strop.interventions import (
    Head,
    Intervention,
    LowRankEdit,
    LowRankUpdate,
    OutputBias,
    Positions,
    SingularValuePruning,
    SpectrumScaling,
)
from strop.recipe import Recipe, applied, attach, detach

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")  # of PEFT

T = MatrixType
Tiny = Callable[..., Any]
QUERY, DOWN = WeightSite(1, T.QUERY), WeightSite(2, T.DOWN)


def recipe_of(model: nn.Module, updates: list[LowRankUpdate], head: Head | None = None) -> Recipe:
    """A recipe of LoRAs with random numbers."""
    anatomy, generator = Anatomy.of(model), torch.Generator().manual_seed(0)
    shapes = [anatomy.read_weight(model, update.site).shape for update in updates]
    tensors = [factors(update, (shape[0], shape[1]), generator) for update, shape in zip(updates, shapes, strict=True)]
    return Recipe.of(model, updates, tensors=tensors, head=head)


def assert_peft_says_the_same(model: Any, base: Any, recipe: Recipe, folder: Path) -> dict[str, Any]:
    """Compare the recipe on a model with its adapter on another copy; return adapter_config.json."""
    plain = logits(model)
    with applied(model, recipe):
        expected = logits(model)
    assert export_peft(model, recipe, folder) == folder
    assert torch.equal(logits(model), plain)
    adapted = peft.PeftModel.from_pretrained(base, folder)
    assert not torch.allclose(expected, plain, atol=1e-2)
    torch.testing.assert_close(logits(adapted), expected, atol=1e-5, rtol=1e-4)
    config: dict[str, Any] = json.loads((folder / "adapter_config.json").read_text())
    return config


@pytest.mark.parametrize(
    ("family", "modules"),
    [
        ("llama", ["self_attn.q_proj", "self_attn.v_proj", "mlp.down_proj"]),
        ("gpt2", ["attn.c_attn", "mlp.c_proj"]),
        ("gpt_neox", ["attention.query_key_value", "mlp.dense_4h_to_h"]),
        ("phi3", ["self_attn.qkv_proj", "mlp.down_proj"]),
    ],
)
def test_the_adapter_on_the_base_is_the_recipe_on_the_base(
    tiny: Tiny, tmp_path: Path, family: str, modules: list[str]
) -> None:
    model = tiny(family)
    anatomy = Anatomy.of(model)
    sites = anatomy.sites(matrix_types=[T.QUERY, T.VALUE, T.DOWN], layers=[0, 2])
    head = LowRankUpdate(WeightSite(1, T.OUTPUT, head=1), rank=2, alpha=1)
    recipe = recipe_of(model, [*(LowRankUpdate(site, 3, 6 if site.layer else 5) for site in sites), head])
    config = assert_peft_says_the_same(model, tiny(family), recipe, tmp_path / "adapter")
    blocks = anatomy.family.paths[None]
    output = anatomy.module_path(head.site)
    expected = {f"{blocks}.{layer}.{inside}" for layer in (0, 2) for inside in modules} | {output}
    assert set(config["target_modules"]) == expected
    assert config["fan_in_fan_out"] == (family == "gpt2")
    assert config["task_type"] == "CAUSAL_LM"
    assert config["rank_pattern"][output] == 2


def test_one_rank_and_alpha_need_no_patterns_and_the_numbers_are_those_that_were_learned(
    tiny: Tiny, tmp_path: Path
) -> None:
    model = tiny("llama")
    updates = [LowRankUpdate(site, 8, 16) for site in Anatomy.of(model).sites(matrix_types=[T.QUERY, T.VALUE])]
    recipe = recipe_of(model, updates)
    config = assert_peft_says_the_same(model, tiny("llama"), recipe, tmp_path / "adapter")
    assert (config["r"], config["lora_alpha"], config["lora_dropout"], config["bias"]) == (8, 16, 0.0, "none")
    assert (config["rank_pattern"], config["alpha_pattern"], config["modules_to_save"]) == ({}, {}, None)
    assert config["base_model_name_or_path"] == recipe.base.id
    tensors = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert len(tensors) == 2 * len(updates)
    first = "base_model.model.model.layers.0.self_attn.q_proj"
    assert torch.equal(tensors[f"{first}.lora_A.weight"], recipe.tensors[0]["A"])
    assert torch.equal(tensors[f"{first}.lora_B.weight"], recipe.tensors[0]["B"])
    kept = json.loads((tmp_path / "adapter" / "strop_recipe.json").read_text())
    assert kept["interventions"] == recipe.describe()
    card = (tmp_path / "adapter" / "README.md").read_text()
    assert "library_name: peft" in card
    assert 'model = PeftModel.from_pretrained(model, "THIS FOLDER")' in card
    assert {file.name for file in (tmp_path / "adapter").iterdir()} == {
        "adapter_config.json", "adapter_model.safetensors", "README.md", "strop_recipe.json",
    }  # fmt: skip


def test_what_an_update_learned_on_another_stands_beside_it(tiny: Tiny, tmp_path: Path) -> None:
    model = tiny("llama")
    sites = (QUERY, WeightSite(1, T.QUERY, head=1), QUERY)
    recipe = recipe_of(model, [LowRankUpdate(site, 2, alpha) for site, alpha in zip(sites, (2, 4, 1.5), strict=True)])
    config = assert_peft_says_the_same(model, tiny("llama"), recipe, tmp_path / "adapter")
    assert (config["r"], config["lora_alpha"]) == (6, 6)


def test_prunings_and_scalings_of_a_few_components_are_adapters_too(tiny: Tiny, tmp_path: Path) -> None:
    model = tiny("gpt2")
    update = LowRankUpdate(QUERY, 2, 2)
    edits: list[Intervention] = [
        SingularValuePruning(QUERY, (0, 3)),
        update,
        SingularValuePruning(QUERY, (1,)),
        SpectrumScaling(DOWN, top=4, band=1),
        SpectrumScaling(WeightSite(0, T.UP), top=3),
    ]
    generator = torch.Generator().manual_seed(0)
    band = {"change": torch.rand(4, generator=generator), "band": torch.rand(2, 4, generator=generator)}
    tensors = [{}, factors(update, (32, 32)), {}, band, {"change": torch.tensor([0.5, -1.0, 2.0])}]
    recipe = Recipe.of(model, edits, tensors=tensors)
    config = assert_peft_says_the_same(model, tiny("gpt2"), recipe, tmp_path / "adapter")
    ranks = {path.split(".")[-1]: config["rank_pattern"].get(path, config["r"]) for path in config["target_modules"]}
    assert sorted(ranks.values()) == [3, 4, 5]
    export_peft(model, recipe.with_factors(model), tmp_path / "with factors")
    mine, theirs = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("adapter", "with factors"))
    for name, own in mine.items():
        torch.testing.assert_close(theirs[name], own)


@pytest.mark.parametrize("family", ["llama", "bert"])
def test_a_classifiers_head_comes_along(tiny_classifier: Tiny, tmp_path: Path, family: str) -> None:
    model = tiny_classifier(family, 3)
    drawn = torch.Generator().manual_seed(0)
    head = Head.of(model, ("a", "b", "c"))
    head = head.with_tensors({name: torch.randn(own.shape, generator=drawn) for name, own in head.tensors.items()})
    recipe = recipe_of(model, [LowRankUpdate(QUERY, 2, 4)], head)
    config = assert_peft_says_the_same(model, tiny_classifier(family, 3), recipe, tmp_path / "adapter")
    saved = {"llama": ["score"], "bert": ["bert.pooler", "classifier"]}[family]
    assert sorted(config["modules_to_save"]) == saved
    assert config["task_type"] == "SEQ_CLS"


def test_a_base_in_bfloat16_takes_the_adapter_with_a_note(tiny: Tiny, tmp_path: Path) -> None:
    recipe = recipe_of(tiny("llama"), [LowRankUpdate(QUERY, 2, 4)])
    with pytest.warns(StropWarning, match="this is the same base in bfloat16"):
        export_peft(tiny("llama").bfloat16(), recipe, tmp_path / "adapter")
    tensors = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert {own.dtype for own in tensors.values()} == {torch.float32}


def test_peft_is_not_needed_to_write_one(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "peft"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "peft", None)
    model = tiny("llama")
    assert export_peft(model, recipe_of(model, [LowRankUpdate(QUERY, 2, 4)]), tmp_path / "adapter").is_dir()


# What an adapter cannot hold


@pytest.mark.parametrize(
    ("edit", "tensors", "said"),
    [
        (
            EDITS[0], {},
            "layer 1 up: what rank_reduction changes is of no low rank, and an adapter would be no smaller than the "
            "matrix; bake the recipe instead (strop bake).",
        ),
        (
            SpectrumScaling(QUERY), {"change": torch.ones(32)},
            "layer 1 query: what spectrum changes is of no low rank, and an adapter would be no smaller than the "
            "matrix; bake the recipe instead (strop bake).",
        ),
        (
            SingularValuePruning(QUERY, tuple(range(16))), {},
            "layer 1 query: what singular_value_pruning changes is of no low rank, and an adapter would be no smaller than the "
            "matrix; bake the recipe instead (strop bake).",
        ),
        (
            SingularValuePruning(QUERY, (0,), bias="mean"), {"bias": torch.ones(32)},
            "layer 1 query: an adapter of PEFT's holds no bias, and singular_value_pruning adds one; bake the recipe instead "
            "(strop bake).",
        ),
        (
            OutputBias(DOWN), {"bias": torch.ones(32)},
            "layer 2 down: an adapter of PEFT's holds no bias, and bias adds one; bake the recipe instead (strop bake).",
        ),
        (
            LowRankEdit(StreamSite(1), "loreft", 2, Positions(last=1)), None,
            "layer 1 block: an adapter of PEFT's changes weights alone, and loreft edits hidden states; keep the recipe and "
            "apply it.",
        ),
    ],
)  # fmt: skip
def test_what_no_adapter_holds_is_refused_in_a_sentence(
    tiny: Tiny, tmp_path: Path, edit: Any, tensors: Any, said: str
) -> None:
    model = tiny("llama")
    own = tensors if tensors is not None else edit.initial_tensors((32, 32))
    with pytest.raises(InterventionError) as raised:
        export_peft(model, Recipe.of(model, [edit], tensors=[own]), tmp_path / "adapter")
    assert str(raised.value) == said
    assert not (tmp_path / "adapter").exists()


def test_an_expert_of_many_in_one_parameter_is_refused(tmp_path: Path) -> None:
    from transformers import MixtralConfig, MixtralForCausalLM

    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = MixtralForCausalLM(
        MixtralConfig(**sizes, num_key_value_heads=2, num_local_experts=2, vocab_size=64, max_position_embeddings=32)
    ).eval()
    recipe = recipe_of(model, [LowRankUpdate(WeightSite(0, T.DOWN, expert=1), 2, 4)])
    with pytest.raises(InterventionError) as raised:
        export_peft(model, recipe, tmp_path / "adapter")
    assert str(raised.value) == (
        "layer 0 down expert 1: model.layers.0.mlp.experts is no linear module that the block calls, and PEFT's LoRA is of "
        "these; bake the recipe instead (strop bake)."
    )


def test_no_edit_another_base_and_a_model_that_is_edited_are_refused(tiny: Tiny, tmp_path: Path) -> None:
    model, other = tiny("llama"), tiny("llama")
    recipe = recipe_of(model, [LowRankUpdate(QUERY, 2, 4)])
    with pytest.raises(InterventionError, match="This recipe edits nothing, and an adapter of nothing is none"):
        export_peft(model, Recipe.of(model, []), tmp_path / "adapter")
    with torch.no_grad():
        other.model.layers[1].self_attn.q_proj.weight.add_(1)
    with pytest.raises(BaseMismatchError, match="layer 1 query is not the matrix the recipe was made for"):
        export_peft(other, recipe, tmp_path / "adapter")
    assert export_peft(other, recipe, tmp_path / "forced", force=True).is_dir()
    attach(model, recipe)
    with pytest.raises(
        InterventionError, match="Something is attached to this model already; detach it before exporting"
    ):
        export_peft(model, recipe, tmp_path / "adapter")
    detach(model)
    with pytest.raises(UsageError, match="forced is there already and is not empty"):
        export_peft(model, recipe, tmp_path / "forced")
    with pytest.raises(UsageError, match=r"give a strop\.Recipe, which is strop\.Recipe\.load\('facts'\)"):
        export_peft(model, "facts", tmp_path / "adapter")  # type: ignore[arg-type]
    adapted = peft.get_peft_model(model, peft.LoraConfig(target_modules=["q_proj"])).get_base_model()
    with pytest.raises(InterventionError, match="There is an adapter of PEFT in this model"):
        export_peft(adapted, recipe, tmp_path / "adapter")
