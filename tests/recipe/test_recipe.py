"""The recipe as a document: written, read, refused where it does not belong."""

import dataclasses
import json
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import strop
from strop.anatomy import Anatomy, MatrixType, WeightSite
from strop.errors import BaseMismatchError, InterventionError, RecipeError, SiteError, UsageError
from strop.interventions import RankReduction, SingularValuePruning, attachments_of, method_names
from strop.recipe import FORMAT, Recipe, applied, attach, detach

T = MatrixType
Tiny = Callable[..., nn.Module]
IDS = torch.arange(1, 9)[None]
EDITS = (
    RankReduction(WeightSite(1, T.UP), rank_fraction=0.25),
    RankReduction(WeightSite(0, T.QUERY), rank_fraction=0.1),
    RankReduction(WeightSite(2, T.VALUE, head=1), rank_fraction=0.5),
)
PROVENANCE = {
    "task": "small-facts",
    "seed": 0,
    "versions": {"strop": "0.1.0"},
    "base": {"accuracy": 0.0521, "loss": 6.5, "count": 400},
    "edited": {"accuracy": 0.1312, "loss": 5.0, "count": 400},
    "comparison": {"gain": 0.0791, "ci95": [0.05, 0.11], "p_value": 1.25e-9, "fixed": 40, "broken": 8},
}


def logits(model: nn.Module) -> Tensor:
    with torch.no_grad():
        return model(input_ids=IDS, use_cache=False).logits


@pytest.fixture(params=["llama", "gpt2", "gpt_neox"])
def model(request: pytest.FixtureRequest, tiny: Tiny) -> nn.Module:
    return tiny(request.param)


@pytest.fixture
def llama(tiny: Tiny) -> nn.Module:
    return tiny("llama")


@pytest.fixture
def never_decomposing(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    def forbid() -> None:
        def never(*arguments: object, **settings: object) -> None:
            raise AssertionError("a decomposition was made")

        monkeypatch.setattr("strop.linalg.cache.decompose", never)
        monkeypatch.setattr("strop.linalg.cache.load_file", never)

    return forbid


def test_a_recipe_is_read_back_as_it_was_written(model: nn.Module, tmp_path: Path) -> None:
    recipe = Recipe.of(model, EDITS, provenance=PROVENANCE)
    assert recipe.save(tmp_path / "facts") == tmp_path / "facts"
    read = Recipe.load(tmp_path / "facts")
    assert read == recipe
    assert read.interventions == EDITS
    assert read.provenance == PROVENANCE
    assert Recipe.load(tmp_path / "facts") == recipe
    assert sorted(file.name for file in (tmp_path / "facts").iterdir()) == ["README.md", "recipe.json"]


def test_a_recipe_read_back_does_the_same_to_the_model(model: nn.Module, tmp_path: Path) -> None:
    recipe = Recipe.of(model, EDITS)
    plain = logits(model)
    with strop.applied(model, recipe):
        expected = logits(model)
    assert not torch.allclose(expected, plain, atol=1e-3)
    recipe.save(tmp_path / "facts")
    with strop.applied(model, Recipe.load(tmp_path / "facts")):
        assert torch.equal(logits(model), expected)
    assert torch.equal(logits(model), plain)


def test_kept_factors_survive_to_the_last_bit_and_spare_the_decomposition(
    model: nn.Module, tmp_path: Path, never_decomposing: Callable[[], None]
) -> None:
    recipe = Recipe.of(model, EDITS, provenance=PROVENANCE)
    with applied(model, recipe):
        expected = logits(model)
    with_factors = recipe.with_factors(model)
    with_factors.save(tmp_path / "facts")
    never_decomposing()
    read = Recipe.load(tmp_path / "facts")
    assert read == with_factors
    assert read != recipe
    with applied(model, read):
        torch.testing.assert_close(logits(model), expected, atol=1e-5, rtol=1e-5)
    with pytest.raises(AssertionError, match="a decomposition was made"), applied(model, recipe):
        pass


def test_factors_are_small_next_to_the_matrix(llama: nn.Module) -> None:
    (tensors,) = Recipe.of(llama, EDITS[:1]).with_factors(llama).tensors
    assert {name: tuple(tensor.shape) for name, tensor in tensors.items()} == {"left": (48, 8), "right": (8, 32)}


@pytest.mark.parametrize(
    "sites",
    [
        (WeightSite(1, T.UP), WeightSite(1, T.UP)),
        (WeightSite(1, T.VALUE), WeightSite(1, T.VALUE, head=0)),
        (WeightSite(1, T.VALUE, head=0), WeightSite(1, T.VALUE)),
    ],
)
def test_factors_are_of_what_the_edits_before_left(
    sites: tuple[WeightSite, WeightSite], llama: nn.Module, never_decomposing: Callable[[], None]
) -> None:
    before = {name: tensor.clone() for name, tensor in llama.state_dict().items()}
    recipe = Recipe.of(llama, [RankReduction(sites[0], rank_fraction=0.5), SingularValuePruning(sites[1], (0, 2))])
    with applied(llama, recipe):
        expected = logits(llama)
    kept = recipe.with_factors(llama)
    assert all(torch.equal(tensor, before[name]) for name, tensor in llama.state_dict().items())
    never_decomposing()
    with applied(llama, kept):
        torch.testing.assert_close(logits(llama), expected, atol=1e-5, rtol=1e-5)


def test_factors_are_kept_for_two_heads_of_one_matrix(llama: nn.Module) -> None:
    edits = [RankReduction(WeightSite(1, T.QUERY, head=head), rank_fraction=0.25) for head in (0, 1)]
    recipe = Recipe.of(llama, edits)
    with applied(llama, recipe):
        expected = logits(llama)
    with applied(llama, recipe.with_factors(llama)):
        torch.testing.assert_close(logits(llama), expected, atol=1e-5, rtol=1e-5)


def test_one_matrix_may_be_edited_twice_in_order(llama: nn.Module, tmp_path: Path) -> None:
    site = WeightSite(1, T.UP)
    edits = [RankReduction(site, rank_fraction=0.5), RankReduction(site, rank_fraction=0.25)]
    Recipe.of(llama, edits).save(tmp_path / "twice")
    with applied(llama, Recipe.load(tmp_path / "twice")):
        assert int(torch.linalg.matrix_rank(Anatomy.of(llama).read_weight(llama, site), rtol=1e-5)) == 8


def test_the_order_the_figures_and_the_tensors_make_two_recipes_different(llama: nn.Module) -> None:
    recipe = Recipe.of(llama, EDITS[:2])
    assert recipe == Recipe.of(llama, EDITS[:2])
    assert recipe != Recipe.of(llama, EDITS[1::-1])
    assert recipe != Recipe.of(llama, EDITS[:2], provenance={"seed": 1})
    assert recipe != "a recipe"
    factors = recipe.with_factors(llama)
    assert factors == recipe.with_factors(llama)
    other = [{name: tensor.clone() for name, tensor in tensors.items()} for tensors in factors.tensors]
    other[0]["left"][0, 0] += 1e-6
    assert factors != dataclasses.replace(factors, tensors=tuple(other))


def test_a_recipe_of_no_edits_is_a_recipe(llama: nn.Module, tmp_path: Path) -> None:
    recipe = Recipe.of(llama, [])
    recipe.save(tmp_path / "none")
    plain = logits(llama)
    with applied(llama, Recipe.load(tmp_path / "none")):
        assert torch.equal(logits(llama), plain)
    assert str(recipe) == "no edit of LlamaForCausalLM"


def test_a_recipe_reads_as_words(llama: nn.Module) -> None:
    assert str(Recipe.of(llama, EDITS[:1])) == "LlamaForCausalLM: layer 1 up: rank reduction to rank 8 (25.0 % kept)"


def test_a_recipe_for_a_site_that_is_not_there_cannot_be_made(llama: nn.Module) -> None:
    with pytest.raises(SiteError, match="layer 9 up: this model has layers 0 to 2"):
        Recipe.of(llama, [RankReduction(WeightSite(9, T.UP), rank_fraction=0.1)])


def test_lists_of_different_lengths_are_refused_with_their_lengths(llama: nn.Module) -> None:
    recipe = Recipe.of(llama, EDITS)
    with pytest.raises(RecipeError, match="3 interventions has 2 matrix identities and 3 sets of tensors"):
        dataclasses.replace(recipe, matrices=recipe.matrices[:2])


def test_a_folder_that_holds_something_is_not_written_over(llama: nn.Module, tmp_path: Path) -> None:
    recipe = Recipe.of(llama, EDITS)
    recipe.save(tmp_path / "facts")
    before = (tmp_path / "facts" / "recipe.json").read_bytes()
    with pytest.raises(UsageError, match="facts is there already and is not empty"):
        Recipe.of(llama, EDITS[:1]).save(tmp_path / "facts")
    assert (tmp_path / "facts" / "recipe.json").read_bytes() == before


def test_an_interrupted_write_leaves_nothing(llama: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: object, **settings: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("strop.recipe.document.model_card", interrupted)
    with pytest.raises(KeyboardInterrupt):
        Recipe.of(llama, EDITS).save(tmp_path / "facts")
    assert not list(tmp_path.glob("*facts*"))


def test_the_document_says_what_a_reader_wants_to_know(llama: nn.Module, tmp_path: Path) -> None:
    Recipe.of(llama, EDITS, provenance=PROVENANCE).save(tmp_path / "facts")
    written = json.loads((tmp_path / "facts" / "recipe.json").read_text(encoding="utf-8"))
    assert list(written) == ["format", "base", "interventions", "matrices", "provenance"]
    assert written["format"] == FORMAT
    assert written["base"].keys() == {"id", "revision", "architecture", "fingerprint"}
    assert written["interventions"][0] == {
        "method": "rank_reduction", "layer": 1, "matrix_type": "up", "rank_fraction": 0.25, "rank": 8,
    }  # fmt: skip
    assert written["interventions"][2]["head"] == 1
    assert written["matrices"][0]["shape"] == [48, 32]
    assert written["matrices"][0]["dtype"] == "float32"


# Prunings and the biases they leave behind

PRUNINGS = (
    SingularValuePruning(WeightSite(1, T.KEY, head=0), (0, 2), bias="mean"),
    SingularValuePruning(WeightSite(2, T.UP), (1,), bias="position"),
    SingularValuePruning(WeightSite(0, T.DOWN), (0, 1, 2)),
    RankReduction(WeightSite(1, T.QUERY), rank_fraction=0.5),
)


def pruned(model: nn.Module, **settings: Any) -> Recipe:
    """A recipe whose biases are rows of one tensor, as a search would cut them."""
    anatomy = Anatomy.of(model)
    keys, ups = (anatomy.read_weight(model, edit.site).shape[0] for edit in PRUNINGS[:2])
    numbers = torch.randn(9, max(keys, ups), generator=torch.Generator().manual_seed(0))
    tensors = [{"bias": numbers[0, :keys]}, {"bias": numbers[1:, :ups]}, {}, {}]
    return Recipe.of(model, PRUNINGS, tensors=tensors, **settings)


def test_a_recipe_with_biases_is_read_back_and_does_the_same(model: nn.Module, tmp_path: Path) -> None:
    recipe = pruned(model, provenance=PROVENANCE)
    plain = logits(model)
    with applied(model, recipe):
        expected = logits(model)
    assert not torch.allclose(expected, plain, atol=1e-3)
    recipe.save(tmp_path / "facts")
    read = Recipe.load(tmp_path / "facts")
    assert read == recipe
    assert [sorted(tensors) for tensors in read.tensors] == [["bias"], ["bias"], [], []]
    with applied(model, read):
        assert torch.equal(logits(model), expected)
    assert torch.equal(logits(model), plain)


def test_factors_are_kept_beside_the_biases(
    model: nn.Module, tmp_path: Path, never_decomposing: Callable[[], None]
) -> None:
    recipe = pruned(model)
    with applied(model, recipe):
        expected = logits(model)
    both = recipe.with_factors(model)
    names = [["bias", "left", "right"]] * 2 + [["left", "right"]] * 2
    assert [sorted(tensors) for tensors in both.tensors] == names
    both.save(tmp_path / "facts")
    never_decomposing()
    read = Recipe.load(tmp_path / "facts")
    assert read == both
    with applied(model, read):
        torch.testing.assert_close(logits(model), expected, atol=1e-5, rtol=1e-5)


def test_two_interventions_may_carry_the_very_same_tensor(llama: nn.Module, tmp_path: Path) -> None:
    edits = [SingularValuePruning(WeightSite(layer, T.UP), (0,), bias="mean") for layer in (0, 1)]
    bias = torch.ones(48, requires_grad=True)
    recipe = Recipe.of(llama, edits, tensors=[{"bias": bias}, {"bias": bias}])
    recipe.save(tmp_path / "facts")
    assert Recipe.load(tmp_path / "facts") == recipe


def test_a_bias_of_another_value_or_dtype_makes_another_recipe(llama: nn.Module) -> None:
    recipe = pruned(llama)
    assert recipe == pruned(llama)
    bias = recipe.tensors[0]["bias"]
    for other in (bias + 1e-6, bias.double(), bias[:-1]):
        assert recipe != dataclasses.replace(recipe, tensors=({"bias": other}, *recipe.tensors[1:]))
    assert recipe != dataclasses.replace(recipe, tensors=({}, *recipe.tensors[1:]))


def test_tensors_for_more_or_fewer_interventions_are_refused(llama: nn.Module) -> None:
    with pytest.raises(RecipeError, match="4 interventions has 4 matrix identities and 1 sets of tensors"):
        Recipe.of(llama, PRUNINGS, tensors=[{}])


def without_its_bias(tensors: dict[str, Tensor]) -> None:
    del tensors["0.bias"]


def with_a_longer_bias(tensors: dict[str, Tensor]) -> None:
    tensors["0.bias"] = torch.zeros(9)


def with_nan_in_its_bias(tensors: dict[str, Tensor]) -> None:
    tensors["0.bias"][3] = torch.nan


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (without_its_bias, "a mean bias is a tensor of 1 axis, and the recipe's is missing; prune anew"),
        (with_a_longer_bias, r"a bias of shape \(9,\) does not fit a matrix of 8 outputs; prune anew"),
        (with_nan_in_its_bias, "its bias is not made of finite numbers; prune anew"),
    ],
)
def test_a_damaged_bias_is_refused_by_its_site_and_nothing_stays(
    damage: Callable[[dict[str, Tensor]], None], complaint: str, llama: nn.Module, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    pruned(llama).save(tmp_path / "facts")
    tensors = load_file(tmp_path / "facts" / "tensors.safetensors")
    damage(tensors)
    save_file(tensors, tmp_path / "facts" / "tensors.safetensors")
    plain = logits(llama)
    with pytest.raises(InterventionError, match=f"^layer 1 key head 0: {complaint}") as caught:
        attach(llama, Recipe.load(tmp_path / "facts"))
    assert "\n" not in str(caught.value)
    assert torch.equal(logits(llama), plain)


def test_a_recipe_of_many_prunings_reads_as_a_few_words(llama: nn.Module, tmp_path: Path) -> None:
    edits = [
        SingularValuePruning(WeightSite(layer, matrix_type, head=head), (0, 5), bias="mean")
        for matrix_type in (T.KEY, T.VALUE)
        for layer in range(3)
        for head in range(2)
    ]
    recipe = Recipe.of(llama, edits, tensors=[{"bias": torch.zeros(8)}] * len(edits))
    lines = [
        "key: 12 of 48 singular values removed in 3 layers (mean bias)",
        "value: 12 of 48 singular values removed in 3 layers (mean bias)",
    ]
    assert str(recipe) == f"LlamaForCausalLM: {'; '.join(lines)}"
    recipe.save(tmp_path / "facts")
    card = (tmp_path / "facts" / "README.md").read_text(encoding="utf-8")
    assert [line[2:] for line in card.splitlines() if line.startswith("- ") and "removed" in line] == lines


# Attaching


def test_attach_and_detach_are_the_long_lived_form(model: nn.Module) -> None:
    plain = logits(model)
    recipe = Recipe.of(model, EDITS)
    attach(model, recipe)
    assert not torch.allclose(logits(model), plain, atol=1e-3)
    detach(model)
    assert torch.equal(logits(model), plain)
    with pytest.raises(InterventionError, match="Nothing is attached to this model"):
        detach(model)


def test_a_second_recipe_goes_on_top_and_comes_off_first(llama: nn.Module) -> None:
    plain = logits(llama)
    first, second = Recipe.of(llama, EDITS[:1]), Recipe.of(llama, EDITS[1:])
    attach(llama, first)
    one = logits(llama)
    handle = attach(llama, second)
    detach(llama)
    assert torch.equal(logits(llama), one)
    handle.detach()
    assert torch.equal(logits(llama), one)
    detach(llama)
    assert torch.equal(logits(llama), plain)


def test_the_same_recipe_cannot_be_put_on_twice(llama: nn.Module) -> None:
    recipe = Recipe.of(llama, EDITS)
    attach(llama, recipe)
    with pytest.raises(
        BaseMismatchError,
        match="layer 1 up is not the matrix the recipe was made for: a recipe that is attached edits it",
    ):
        attach(llama, recipe)
    assert len(attachments_of(llama)) == 1
    detach(llama)


# Folders that hold no recipe, or a damaged one


@pytest.fixture
def written(llama: nn.Module, tmp_path: Path) -> Path:
    return Recipe.of(llama, EDITS, provenance=PROVENANCE).with_factors(llama).save(tmp_path / "facts")


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"nothing is not a recipe: it holds no recipe\.json\.$"):
        Recipe.load(tmp_path / "nothing")


def test_a_run_folder_is_told_where_its_recipe_lies(llama: nn.Module, tmp_path: Path) -> None:
    Recipe.of(llama, EDITS).save(tmp_path / "run" / "recipe")
    with pytest.raises(RecipeError, match=rf"run is not a recipe: .* Did you mean {tmp_path / 'run' / 'recipe'}\?"):
        Recipe.load(tmp_path / "run")


def change(folder: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    path = folder / "recipe.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    edit(content)
    path.write_text(json.dumps(content), encoding="utf-8")


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", "null", "\ufeff{}", '{"format": 1', "[" * 100_000])
def test_a_document_that_is_no_json_object_is_refused_by_its_path(text: str, written: Path) -> None:
    (written / "recipe.json").write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError, match=r"facts.recipe\.json cannot be read as a recipe: .+") as caught:
        Recipe.load(written)
    assert "\n" not in str(caught.value)


def test_a_document_that_is_not_text_is_refused_by_its_path(written: Path) -> None:
    (written / "recipe.json").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(RecipeError, match=r"recipe\.json cannot be read as a recipe"):
        Recipe.load(written)


@pytest.mark.parametrize("key", ["format", "base", "interventions", "matrices"])
def test_a_missing_key_is_named(key: str, written: Path) -> None:
    change(written, lambda content: content.pop(key))
    with pytest.raises(RecipeError, match=rf"recipe\.json cannot be read as a recipe: {key}: Field required") as caught:
        Recipe.load(written)
    assert "\n" not in str(caught.value)


def test_a_missing_key_inside_is_named_with_its_path(written: Path) -> None:
    change(written, lambda content: content["matrices"][1].pop("shape"))
    with pytest.raises(RecipeError, match=r"cannot be read as a recipe: matrices\.1\.shape: Field required"):
        Recipe.load(written)


def test_a_newer_format_is_refused_with_both_versions_whatever_else_it_holds(written: Path) -> None:
    (written / "recipe.json").write_text(json.dumps({"format": FORMAT + 1, "entirely": "different"}))
    with pytest.raises(RecipeError, match=rf"is of format {FORMAT + 1}, .* reads up to {FORMAT}: upgrade Strop"):
        Recipe.load(written)


def test_an_unknown_method_is_refused_with_the_methods_there_are(written: Path) -> None:
    change(written, lambda content: content["interventions"][0].update(method="os.system"))
    known = re.escape(", ".join(method_names()))
    with pytest.raises(RecipeError, match=rf"'os\.system' is not a method this version knows \({known}\)"):
        Recipe.load(written)


@pytest.mark.parametrize("key", ["interventions", "matrices"])
def test_an_entry_taken_out_is_noticed(key: str, written: Path) -> None:
    change(written, lambda content: content[key].pop())
    with pytest.raises(RecipeError):
        Recipe.load(written)


@pytest.mark.parametrize("content", [b"", b"garbage" * 10, b"\xff" * 16])
def test_damaged_tensors_are_refused_by_their_path(content: bytes, written: Path) -> None:
    (written / "tensors.safetensors").write_bytes(content)
    with pytest.raises(RecipeError, match=r"facts.tensors\.safetensors cannot be read: .+"):
        Recipe.load(written)


@pytest.mark.parametrize("name", ["3.left", "-1.left", "left", "x.left", "0", "1e0.left"])
def test_a_tensor_that_belongs_to_no_intervention_is_refused_by_its_name(name: str, written: Path) -> None:
    from safetensors.torch import save_file

    save_file({name: torch.zeros(2, 2)}, written / "tensors.safetensors")
    with pytest.raises(RecipeError, match=rf"'{re.escape(name)}'.*belongs to no intervention"):
        Recipe.load(written)


def test_tensors_of_the_wrong_shape_are_refused_when_applied(written: Path, llama: nn.Module) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(written / "tensors.safetensors")
    tensors["0.left"] = torch.zeros(7, 8)
    save_file(tensors, written / "tensors.safetensors")
    plain = logits(llama)
    with pytest.raises(InterventionError, match=r"layer 1 up.*factors of shapes \(7, 8\) and \(8, 32\)"):
        attach(llama, Recipe.load(written))
    assert torch.equal(logits(llama), plain)


# Other base models


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


# Nothing in a folder is executed


class Trap:
    """Unpickling it leaves a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return (Path.touch, (self.path,))


def test_a_pickle_beside_a_recipe_is_never_opened(written: Path, tmp_path: Path, llama: nn.Module) -> None:
    trap = pickle.dumps(Trap(tmp_path / "sprung"))
    for name in ("tensors.pt", "pytorch_model.bin", "recipe.pkl", "__init__.py", "strop.py"):
        (written / name).write_bytes(trap)
    with applied(llama, Recipe.load(written)):
        pass
    assert not (tmp_path / "sprung").exists()
    pickle.loads(trap)
    assert (tmp_path / "sprung").exists()  # it would have gone off


def test_a_pickle_in_the_tensors_place_is_refused_and_not_opened(written: Path, tmp_path: Path) -> None:
    (written / "tensors.safetensors").write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    with pytest.raises(RecipeError, match=r"tensors\.safetensors cannot be read"):
        Recipe.load(written)
    assert not (tmp_path / "sprung").exists()


# The card


def test_the_card_names_base_edits_figures_and_how_to_use_it(llama: nn.Module, tmp_path: Path) -> None:
    recipe = Recipe.of(llama, EDITS, provenance=PROVENANCE)
    base = dataclasses.replace(recipe.base, id="someone/their-model", revision="0123abc")
    dataclasses.replace(recipe, base=base).save(tmp_path / "facts")
    card = (tmp_path / "facts" / "README.md").read_text(encoding="utf-8")
    for part in (
        "base_model: someone/their-model",
        "# someone/their-model for small-facts",
        "(LlamaForCausalLM)",
        "- layer 1 up: rank reduction to rank 8 (25.0 % kept)",
        "- layer 2 value head 1: rank reduction to rank 4",
        "On 400 held-out examples the accuracy went from 0.0521 to 0.1312",
        "a gain of 0.0791 (95 % interval 0.05 to 0.11",
        "40 examples fixed, 8 broken",
        'strop.load("someone/their-model")',
    ):
        assert part in card, part
    assert card.startswith("---\n")


@pytest.mark.parametrize("base", ["smollm2-135m", "/home/someone/model", "./model", "models/mine", "LlamaForCausalLM"])
def test_the_card_gives_no_hub_id_to_a_base_that_has_none(base: str, llama: nn.Module, tmp_path: Path) -> None:
    recipe = Recipe.of(llama, EDITS)
    recipe = dataclasses.replace(recipe, base=dataclasses.replace(recipe.base, id=base))
    recipe.save(tmp_path / "facts")
    card = (tmp_path / "facts" / "README.md").read_text(encoding="utf-8")
    assert "base_model" not in card
    assert f"# {base}, edited" in card
    assert "held-out" not in card
