"""Baking: an ordinary checkpoint, whole or not at all, and the model in memory as it was."""

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tests.fixtures.recipes import EDITS, Tiny, logits
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer

import strop
from strop.anatomy import MatrixType, StreamSite, WeightSite
from strop.errors import BaseMismatchError, InterventionError, RecipeError, StropWarning, UsageError
from strop.export import bake
from strop.interventions import LowRankEdit, Positions, SpectrumScaling
from strop.recipe import Recipe, applied, attach, detach


@pytest.mark.parametrize("model_type", ["llama", "phi3", "gpt2", "gpt_neox"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_baked_checkpoint_loads_in_transformers_with_the_very_logits_of_the_applied_recipe(
    model_type: str, dtype: torch.dtype, tiny: Tiny, tmp_path: Path
) -> None:
    tiny(model_type).to(dtype).save_pretrained(tmp_path / "base")  # .to alone would round rotary tables as well
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "base").eval()
    recipe = Recipe.of(model, EDITS)
    with applied(model, recipe):
        expected = logits(model)
    assert strop.bake(model, recipe, tmp_path / "baked") == tmp_path / "baked"
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "baked").eval()
    assert type(loaded) is type(model)
    assert loaded.dtype == dtype
    assert torch.equal(logits(loaded), expected)


def test_a_tied_head_stays_tied(tiny: Tiny, tmp_path: Path) -> None:
    model = tiny("llama", tie_word_embeddings=True)
    bake(model, Recipe.of(model, EDITS), tmp_path / "baked")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "baked")
    assert loaded.lm_head.weight is loaded.model.embed_tokens.weight


def test_the_model_in_memory_is_left_as_it_was(tiny: Tiny, tmp_path: Path) -> None:
    model = tiny("gpt2")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    where = {name: (id(p), p.data_ptr()) for name, p in model.named_parameters()}
    plain = logits(model)
    bake(model, Recipe.of(model, EDITS), tmp_path / "baked")
    assert {name: (id(p), p.data_ptr()) for name, p in model.named_parameters()} == where
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(logits(model), plain)


def test_the_tokenizer_the_card_and_the_recipe_lie_beside_the_weights(
    tiny: Tiny, small_tokenizer, tmp_path: Path
) -> None:
    model = tiny("llama")
    provenance = {"task": "small-facts", "seed": 3}
    bake(model, Recipe.of(model, EDITS, provenance=provenance), tmp_path / "baked", tokenizer=small_tokenizer)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "baked")
    assert tokenizer(" Lyon").input_ids == small_tokenizer(" Lyon").input_ids
    card = (tmp_path / "baked" / "README.md").read_text(encoding="utf-8")
    assert "library_name: transformers" in card
    assert "LlamaForCausalLM for small-facts" in card
    assert "- layer 1 up: rank reduction to rank 8" in card
    told = json.loads((tmp_path / "baked" / "strop_recipe.json").read_text(encoding="utf-8"))
    assert (told["base"], told["provenance"]) == ("LlamaForCausalLM", provenance)
    assert [entry["rank"] for entry in told["interventions"]] == [8, 3, 4]
    model, tokenizer = strop.load(str(tmp_path / "baked"))


def test_a_folder_that_holds_something_is_refused_and_kept(tiny: Tiny, tmp_path: Path) -> None:
    model = tiny("llama")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "precious").touch()
    with pytest.raises(UsageError, match="full is there already and is not empty: choose another folder or remove"):
        bake(model, Recipe.of(model, EDITS), tmp_path / "full")
    assert [file.name for file in (tmp_path / "full").iterdir()] == ["precious"]


@pytest.mark.parametrize("failure", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_an_interrupted_bake_leaves_no_folder_and_the_model_as_it_was(
    failure: BaseException, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny("llama")
    plain = logits(model)
    save = type(model).save_pretrained

    def interrupted(self: nn.Module, folder: Path, **settings: object) -> None:
        save(self, folder, **settings)
        raise failure

    monkeypatch.setattr(type(model), "save_pretrained", interrupted)
    with pytest.raises(type(failure)):
        bake(model, Recipe.of(model, EDITS), tmp_path / "out" / "baked")
    assert not list((tmp_path / "out").iterdir())
    assert torch.equal(logits(model), plain)


def test_another_base_is_refused_before_anything_is_written(tiny: Tiny, tmp_path: Path) -> None:
    recipe = Recipe.of(tiny("llama"), EDITS)
    with pytest.raises(BaseMismatchError, match="its dtype is float64, not float32"):
        bake(tiny("llama").double(), recipe, tmp_path / "out" / "baked")
    assert not list((tmp_path / "out").glob("*"))
    assert bake(tiny("llama").double(), recipe, tmp_path / "forced", force=True).is_dir()


def test_a_model_with_something_attached_is_refused_for_it_would_be_baked_in_unseen(tiny: Tiny, tmp_path: Path) -> None:
    model = tiny("llama")
    recipe = Recipe.of(model, EDITS)
    attach(model, recipe)
    with pytest.raises(InterventionError, match="attached to this model already; detach it before baking"):
        bake(model, recipe, tmp_path / "baked")
    assert not (tmp_path / "baked").exists()
    detach(model)
    bake(model, recipe, tmp_path / "baked")


def test_the_same_base_in_a_narrower_dtype_is_baked_with_a_note(tiny: Tiny, tmp_path: Path) -> None:
    recipe = Recipe.of(tiny("llama"), EDITS)
    with pytest.warns(
        StropWarning, match="made for LlamaForCausalLM in float32, and this is the same base in bfloat16"
    ):
        bake(tiny("llama").bfloat16(), recipe, tmp_path / "baked")
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "baked").dtype == torch.bfloat16


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")  # of PEFT
@pytest.mark.parametrize("inside", [True, False])
def test_a_model_with_an_adapter_in_it_is_refused_for_only_that_would_be_written(
    inside: bool, tiny: Tiny, tmp_path: Path
) -> None:
    model = tiny("llama")
    recipe = Recipe.of(model, EDITS)
    adapter = LoraConfig(r=2, target_modules=["up_proj"])
    if inside:
        model.add_adapter(adapter)
    else:
        get_peft_model(model, adapter)
    with pytest.raises(
        InterventionError,
        match="There is an adapter of PEFT in this model, .* would be written: merge the adapter first",
    ):
        bake(model, recipe, tmp_path / "out" / "baked")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_a_base_that_is_not_made_of_finite_numbers_is_refused(value: float, tiny: Tiny, tmp_path: Path) -> None:
    model = tiny("llama")
    with torch.no_grad():
        model.model.layers[2].mlp.down_proj.weight[3, 4] = value
    with pytest.raises(
        InterventionError,
        match=r"model\.layers\.2\.mlp\.down_proj\.weight holds NaN or infinity, .*; so does the base's own",
    ):
        bake(model, Recipe.of(model, EDITS), tmp_path / "out" / "baked")
    assert not list((tmp_path / "out").iterdir())


def test_an_edit_that_overflows_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    model = tiny("llama").half()
    scaled = SpectrumScaling(WeightSite(1, MatrixType.UP))
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight.mul_(3e4)
    recipe = Recipe.of(model, [scaled], tensors=[{"change": torch.full((32,), 4.0)}])
    with pytest.raises(
        InterventionError, match=r"mlp\.up_proj\.weight holds NaN or infinity, .*; the recipe makes it so"
    ):
        bake(model, recipe, tmp_path / "out" / "baked")
    assert not list((tmp_path / "out").iterdir())


def test_factors_of_another_matrix_are_not_baked_in(tiny: Tiny, tmp_path: Path) -> None:
    model = tiny("llama")
    recipe = Recipe.of(model, EDITS[:1]).with_factors(model)
    other = dataclasses.replace(recipe, tensors=({**recipe.tensors[0], "left": torch.ones(48, 8)},))
    with pytest.raises(RecipeError, match=r"entry 0: layer 1 up: .* not the components of this matrix"):
        bake(model, other, tmp_path / "out" / "baked")
    assert not (tmp_path / "out").exists()


def test_what_no_checkpoint_can_hold_and_a_taken_folder_are_refused_before_a_model_is_loaded(
    tiny: Tiny, tmp_path: Path
) -> None:
    model = tiny("llama")
    edit = LowRankEdit(StreamSite(1), "loreft", rank=2, positions=Positions(1, 1))
    learned = Recipe.of(model, [edit], tensors=[edit.initial_tensors(model.config.hidden_size)])
    with pytest.raises(
        InterventionError, match=r"^layer 1 block: a checkpoint's weights cannot hold an edit of hidden"
    ):
        bake("no/such model", learned, tmp_path / "baked")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "notes").touch()
    with pytest.raises(UsageError, match="taken is there already and is not empty"):
        bake("no/such model", Recipe.of(model, EDITS), tmp_path / "taken")


def test_a_path_or_a_result_in_the_place_of_a_recipe_says_what_to_give(tiny: Tiny, tmp_path: Path) -> None:
    model = tiny("llama")
    recipe = Recipe.of(model, EDITS)
    folder = recipe.save(tmp_path / "kept")
    result = SimpleNamespace(recipe=recipe)
    for given, said in (
        (str(folder), f"recipe is of type str; give a strop.Recipe, which is strop.Recipe.load('{folder}')."),
        (result, "recipe is of type SimpleNamespace; give a strop.Recipe, which is its .recipe."),
        (None, "recipe is of type NoneType; give a strop.Recipe, which is strop.Recipe.load(folder)."),
    ):
        with pytest.raises(UsageError) as raised:
            bake(model, given, tmp_path / "baked")  # type: ignore[arg-type]
        assert str(raised.value) == said
        with pytest.raises(UsageError, match="^recipe is of type"), applied(model, given):  # type: ignore[arg-type]
            pass
    with pytest.raises(UsageError) as raised, applied("tiny", recipe):  # type: ignore[arg-type]
        pass
    assert str(raised.value) == "model is of type str; load it first: model, tokenizer = strop.load('tiny')."
