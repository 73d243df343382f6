"""Baking biases: where the architecture has them, where a setting gives them, and where no checkpoint can hold them."""

import copy
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.conftest import TINY
from tests.fixtures.oracles import BIAS_SETTINGS
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from strop.anatomy import Anatomy, Family, MatrixType, WeightSite
from strop.errors import BaseMismatchError, InterventionError
from strop.export import bake
from strop.interventions import RankReduction, SingularValuePruning, WeightIntervention
from strop.recipe import Recipe, applied

T = MatrixType
Tiny = Callable[..., nn.Module]
IDS = torch.arange(1, 9)[None]
QKV = (T.QUERY, T.KEY, T.VALUE)
MLP = (T.GATE, T.UP, T.DOWN)
PLAIN_MLP = (T.UP, T.DOWN)

OWN: list[tuple[str, tuple[MatrixType, ...]]] = [
    ("gpt2", (*QKV, T.OUTPUT, *PLAIN_MLP)),
    ("gpt_neox", (*QKV, T.OUTPUT, *PLAIN_MLP)),
    ("qwen2", QKV),
    ("gptj", PLAIN_MLP),
]
"""Model types whose modules of these matrices have a bias as they are."""
NOWHERE = [
    ("mistral", T.KEY), ("phi3", T.QUERY), ("phi3", T.UP), ("gptj", T.VALUE), ("qwen2", T.OUTPUT), ("qwen2", T.GATE),
    ("stablelm", T.OUTPUT), ("qwen3", T.UP), ("gemma", T.DOWN), ("olmo2", T.UP),
]  # fmt: skip


def logits(model: nn.Module) -> Tensor:
    with torch.no_grad():
        return model(input_ids=IDS, use_cache=False).logits


def recipe_with_biases(model: nn.Module, sites: list[WeightSite]) -> Recipe:
    """Prunings with biases so large that a lost one shows."""
    anatomy, generator = Anatomy.of(model), torch.Generator().manual_seed(0)
    outputs = [anatomy.read_weight(model, site).shape[0] for site in sites]
    tensors = [{"bias": torch.randn(count, generator=generator)} for count in outputs]
    return Recipe.of(model, [SingularValuePruning(site, (0, 3), bias="mean") for site in sites], tensors=tensors)


def sites_of(matrix_types: tuple[MatrixType, ...]) -> list[WeightSite]:
    """One layer of each matrix type, and of an attention matrix a head of another layer too."""
    heads = [WeightSite(2, t, head=1) for t in matrix_types if t in (*QKV, T.OUTPUT)]
    return [*(WeightSite(1, t) for t in matrix_types), *heads]


def assert_baked_as_applied(model: nn.Module, recipe: Recipe, folder: Path) -> nn.Module:
    plain, own_config = logits(model), model.config
    config = copy.deepcopy(own_config.to_dict())
    places = {name: (id(p), p.data_ptr(), p.detach().clone()) for name, p in model.named_parameters()}
    with applied(model, recipe):
        expected = logits(model)
    assert not torch.allclose(expected, plain, atol=1e-2)
    bake(model, recipe, folder)
    assert model.config is own_config
    assert own_config.to_dict() == config
    after = {name: (id(p), p.data_ptr(), p) for name, p in model.named_parameters()}
    assert list(after) == list(places)
    assert all(after[name][:2] == places[name][:2] for name in places)
    assert all(torch.equal(after[name][2], places[name][2]) for name in places)
    loaded, found = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not any(found.values()), found
    assert type(loaded) is type(model)
    torch.testing.assert_close(logits(loaded.eval()), expected, atol=1e-6, rtol=1e-6)
    return loaded


@pytest.mark.parametrize(("model_type", "matrix_types"), OWN)
def test_a_bias_the_architecture_has_takes_the_shift_in(
    model_type: str, matrix_types: tuple[MatrixType, ...], tiny: Tiny, tmp_path: Path
) -> None:
    model = tiny(model_type)
    loaded = assert_baked_as_applied(model, recipe_with_biases(model, sites_of(matrix_types)), tmp_path / "baked")
    assert loaded.state_dict().keys() == model.state_dict().keys()
    written = json.loads((tmp_path / "baked" / "config.json").read_text(encoding="utf-8"))
    assert all(written[name] == value for name, value in model.config.to_dict().items() if "bias" in name)


@pytest.mark.parametrize(("model_type", "setting", "matrix_types"), BIAS_SETTINGS)
def test_a_setting_gives_the_bias_and_zeros_to_all_others_it_governs(
    model_type: str, setting: str, matrix_types: tuple[MatrixType, ...], tiny: Tiny, tmp_path: Path
) -> None:
    model = tiny(model_type, **{setting: False})
    anatomy = Anatomy.of(model)
    site = WeightSite(1, matrix_types[-1])
    loaded = assert_baked_as_applied(model, recipe_with_biases(model, [site]), tmp_path / "baked")
    assert getattr(loaded.config, setting) is True
    assert getattr(model.config, setting) is False
    for other in anatomy.sites(matrix_types=matrix_types):
        assert anatomy.module(loaded, other).bias.any() == (other == site), other


@pytest.mark.parametrize("model_type", ["llama", "granite", "smollm3"])
def test_two_settings_hold_the_biases_of_attention_and_mlp(model_type: str, tiny: Tiny, tmp_path: Path) -> None:
    model = tiny(model_type)
    recipe = recipe_with_biases(model, sites_of((*QKV, T.OUTPUT, *MLP)))
    loaded = assert_baked_as_applied(model, recipe, tmp_path / "baked")
    assert (loaded.config.attention_bias, loaded.config.mlp_bias) == (True, True)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_and_a_tied_head_survive(dtype: torch.dtype, tiny: Tiny, tmp_path: Path) -> None:
    tiny("llama", tie_word_embeddings=True).to(dtype).save_pretrained(tmp_path / "base")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "base").eval()
    recipe = recipe_with_biases(model, sites_of(QKV))
    with applied(model, recipe):
        expected = logits(model)
    bake(model, recipe, tmp_path / "baked")
    loaded, found = AutoModelForCausalLM.from_pretrained(tmp_path / "baked", output_loading_info=True)
    assert not any(found.values()), found
    assert {tensor.dtype for tensor in loaded.state_dict().values()} == {dtype}
    assert torch.equal(logits(loaded.eval()), expected)
    assert loaded.lm_head.weight is loaded.model.embed_tokens.weight


def test_a_recipe_without_biases_asks_for_none(tiny: Tiny, tmp_path: Path) -> None:
    model = tiny("llama")
    edits: list[WeightIntervention] = [
        SingularValuePruning(WeightSite(1, T.KEY), (0,)),
        RankReduction(WeightSite(0, T.UP), 0.5),
    ]
    loaded = assert_baked_as_applied(model, Recipe.of(model, edits), tmp_path / "baked")
    assert (loaded.config.attention_bias, loaded.config.mlp_bias) == (False, False)
    assert loaded.state_dict().keys() == model.state_dict().keys()


def test_the_setting_of_a_reduction_in_the_same_recipe_is_left_alone(tiny: Tiny, tmp_path: Path) -> None:
    model = tiny("llama")
    pruned = recipe_with_biases(model, [WeightSite(1, T.KEY, head=0)])
    recipe = Recipe.of(
        model, [RankReduction(WeightSite(0, T.UP), 0.5), *pruned.interventions], tensors=[{}, *pruned.tensors]
    )
    loaded = assert_baked_as_applied(model, recipe, tmp_path / "baked")
    assert (loaded.config.attention_bias, loaded.config.mlp_bias) == (True, False)


# Refusals


def assert_refused(model: nn.Module, recipe: Recipe, folder: Path, complaint: str, **settings: Family) -> None:
    config = copy.deepcopy(model.config.to_dict())
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(InterventionError, match=complaint) as caught:
        bake(model, recipe, folder, **settings)
    assert "\n" not in str(caught.value)
    assert not folder.exists()
    assert model.config.to_dict() == config
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)


@pytest.mark.parametrize(("model_type", "matrix_type"), NOWHERE)
def test_a_bias_the_architecture_cannot_hold_is_refused_by_its_module_with_the_remedy(
    model_type: str, matrix_type: MatrixType, tiny: Tiny, tmp_path: Path
) -> None:
    model = tiny(model_type)
    site = WeightSite(1, matrix_type)
    path = Anatomy.of(model).module_path(site)
    complaint = (
        rf"^layer 1 {matrix_type}: a checkpoint cannot hold a bias of {path}, for no setting of a {model_type} config "
        r"gives it one; keep the recipe and apply it, or prune with --bias none where it is a pruning's\.$"
    )
    assert_refused(model, recipe_with_biases(model, [site]), tmp_path / "baked", complaint)


@pytest.mark.parametrize("model_type", ["llama", "gpt2"])
def test_a_bias_by_position_is_refused_for_its_own_reason(model_type: str, tiny: Tiny, tmp_path: Path) -> None:
    model = tiny(model_type)
    edit = SingularValuePruning(WeightSite(1, T.UP), (0,), bias="position")
    outputs = Anatomy.of(model).read_weight(model, edit.site).shape[0]
    recipe = Recipe.of(model, [edit], tensors=[{"bias": torch.zeros(8, outputs)}])
    complaint = (
        r"^layer 1 up: a checkpoint cannot hold a bias that differs by position; prune with --bias mean, or keep"
    )
    assert_refused(model, recipe, tmp_path / "baked", complaint)


def test_a_setting_the_installed_transformers_ignores_is_noticed_before_anything_is_written(
    tiny: Tiny, tmp_path: Path
) -> None:
    model = tiny("mistral", attention_bias=False)
    complaint = r"a bias of model\.layers\.1\.self_attn\.k_proj, for no setting of a mistral config gives it one"
    recipe = recipe_with_biases(model, [WeightSite(1, T.KEY)])
    assert_refused(model, recipe, tmp_path / "baked", complaint)


def test_another_base_is_named_as_such_although_its_biases_would_not_fit(tiny: Tiny, tmp_path: Path) -> None:
    recipe = recipe_with_biases(tiny("llama"), [WeightSite(1, T.UP)])
    with pytest.raises(BaseMismatchError, match="made for LlamaForCausalLM"):
        bake(tiny("mistral"), recipe, tmp_path / "baked")
    with pytest.raises(BaseMismatchError, match="only 1 layers"):
        bake(tiny("llama", num_hidden_layers=1), recipe, tmp_path / "baked")
    assert not (tmp_path / "baked").exists()


@pytest.mark.parametrize("failure", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_an_interrupted_bake_gives_the_model_its_config_back(
    failure: BaseException, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny("llama")
    plain, own, before = logits(model), model.config, copy.deepcopy(model.config.to_dict())
    asked: list[bool] = []

    def interrupted(self: nn.Module, folder: Path, **settings: object) -> None:
        asked.append(self.config.attention_bias)
        raise failure

    monkeypatch.setattr(type(model), "save_pretrained", interrupted)
    with pytest.raises(type(failure)):
        bake(model, recipe_with_biases(model, [WeightSite(1, T.KEY)]), tmp_path / "baked")
    assert asked == [True]
    assert model.config is own
    assert own.to_dict() == before
    assert model.model.layers[1].self_attn.k_proj.bias is None
    assert torch.equal(logits(model), plain)
    assert not list(tmp_path.glob("*baked*"))


def test_the_guides_table_says_which_architectures_hold_which_biases() -> None:
    guide = (Path(__file__).parents[2] / "docs" / "guides" / "recipe.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in guide.splitlines() if "| `" in line[:3]]
    said = {name.strip(" `"): tuple(row[1:]) for row in rows if len(row) == 3 for name in row[0].split(",")}
    attention, qkv, mlp = {*QKV, T.OUTPUT}, set(QKV), set(PLAIN_MLP)
    own = {model_type: set(matrix_types) for model_type, matrix_types in OWN}
    own |= {encoder: {*QKV, T.OUTPUT, *PLAIN_MLP} for encoder in ("bert", "roberta")}  # all their modules have biases
    for model_type in TINY:
        given = [set(matrix_types) for owner, _, matrix_types in BIAS_SETTINGS if owner == model_type]
        held = own.get(model_type, set()).union(*given)
        in_attention = "yes" if held >= attention else "query, key, value" if held >= qkv else "no"
        assert said[model_type] == (in_attention, "yes" if held >= mlp else "no"), model_type
