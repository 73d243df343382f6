"""The recipe as a document, and on a model: written, read, applied, attached."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.fixtures.recipes import EDITS, PROVENANCE, T, logits
from torch import Tensor, nn

import strop
from strop.anatomy import Anatomy, StreamSite, WeightSite
from strop.errors import BaseMismatchError, InterventionError, RecipeError, SiteError, UsageError
from strop.interventions import LowRankEdit, Positions, RankReduction, SingularValuePruning, attachments_of
from strop.recipe import FORMAT, Recipe, applied, attach, detach


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
        (
            without_its_bias,
            ", entry 0: layer 1 key head 0: a mean bias is a tensor of 1 axis, and the recipe's is missing; prune anew",
        ),
        (
            with_a_longer_bias,
            r", entry 0: layer 1 key head 0: a bias of shape \(9,\) does not fit a matrix of 8 outputs; prune anew",
        ),
        (with_nan_in_its_bias, ": its tensor '0.bias' holds NaN or infinity; copy the recipe again, or make it anew"),
    ],
)
def test_a_damaged_bias_is_refused_by_its_file_and_entry(
    damage: Callable[[dict[str, Tensor]], None], complaint: str, llama: nn.Module, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    pruned(llama).save(tmp_path / "facts")
    tensors = load_file(tmp_path / "facts" / "tensors.safetensors")
    damage(tensors)
    save_file(tensors, tmp_path / "facts" / "tensors.safetensors")
    with pytest.raises(RecipeError, match=f"facts.tensors.safetensors{complaint}") as caught:
        Recipe.load(tmp_path / "facts")
    assert "\n" not in str(caught.value)


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


def test_hidden_states_are_not_edited_by_two_recipes_that_know_nothing_of_each_other(llama: nn.Module) -> None:
    def recipe(layer: int, seed: int) -> Recipe:
        edit = LowRankEdit(StreamSite(layer), "loreft", rank=2, positions=Positions.parse("all"))
        numbers = edit.initial_tensors((32, 32), init="paper", generator=torch.Generator().manual_seed(seed))
        return Recipe.of(llama, [edit], tensors=[numbers])

    plain = logits(llama)
    with applied(llama, recipe(1, seed=0)):
        alone = logits(llama)
        for same_place in (recipe(1, seed=0), recipe(1, seed=1)):
            with pytest.raises(
                BaseMismatchError,
                match=r"layer 1 block does not hold the hidden states the recipe was made for: a recipe that is attached "
                r"edits it already; detach that one, or pass force=True \(--force\) if you know",
            ):
                attach(llama, same_place)
        assert torch.equal(logits(llama), alone)
        with applied(llama, recipe(2, seed=1)):
            assert not torch.equal(logits(llama), alone)
        with applied(llama, recipe(1, seed=1), force=True):
            assert not torch.equal(logits(llama), alone)
    assert torch.equal(logits(llama), plain)
