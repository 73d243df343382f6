"""Rank reduction in several subspaces, on real module weights: what is left, what a recipe keeps of it, and what is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.fixtures.mixtures import FAMILIES, make_described
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from strop.anatomy import Anatomy, MatrixType, WeightSite
from strop.errors import InterventionError, RecipeError, UsageError
from strop.export import bake
from strop.interventions import RankReduction, ScalesSpectrum, applied_interventions, attach_interventions
from strop.linalg import parted_factors
from strop.recipe import Recipe, applied

T = MatrixType
UP = WeightSite(1, T.UP)
Tiny = Callable[..., nn.Module]
KINDS: list[dict[str, Any]] = [
    {"subspaces": 2},
    {"subspaces": 3, "axis": "input"},
    {"subspaces": 2, "partition": "subspace"},
    {"subspaces": 3, "axis": "input", "partition": "subspace"},
]
every_kind = pytest.mark.parametrize("kind", KINDS, ids=str)


def up_of(model: nn.Module) -> Tensor:
    """A copy of the matrix as it stands; while it is edited the parameter has another storage."""
    return Anatomy.of(model).read_weight(model, UP).clone()


def expected(matrix: Tensor, edit: RankReduction) -> Tensor:
    return parted_factors(
        matrix,
        subspaces=edit.subspaces,
        rank=edit.rank((matrix.shape[0], matrix.shape[1])),
        axis=edit.axis,
        partition=edit.partition,
    ).product()


@every_kind
@pytest.mark.parametrize("model_type", ["llama", "phi3", "gpt2"])
def test_only_the_matrix_asked_for_is_parted_and_it_comes_back(
    model_type: str, kind: dict[str, Any], tiny: Tiny
) -> None:
    """Also where it is a slice of a fused matrix, or is stored the other way round."""
    model = tiny(model_type)
    anatomy = Anatomy.of(model)
    before = {site: anatomy.read_weight(model, site).clone() for site in anatomy.sites(layers=[1])}
    for site in (WeightSite(1, T.VALUE), UP):
        edit = RankReduction(site, rank_fraction=0.3, **kind)
        with applied_interventions(model, [edit]):
            edited = anatomy.read_weight(model, site).clone()
            others = [other for other in before if other != site]
            assert all(torch.equal(anatomy.read_weight(model, other), before[other]) for other in others)
        torch.testing.assert_close(edited, expected(before[site], edit), atol=1e-6, rtol=0)
        assert not torch.allclose(edited, before[site], atol=1e-2)
        assert torch.equal(anatomy.read_weight(model, site), before[site])


def test_a_head_and_an_expert_are_parted_like_any_matrix(tiny: Tiny) -> None:
    mixture = make_described("mixtral")
    for model, anatomy, site in (
        (tiny("llama"), Anatomy.of(tiny("llama")), WeightSite(1, T.QUERY, head=1)),
        (mixture, Anatomy.of(mixture, family=FAMILIES["mixtral"]), WeightSite(1, T.DOWN, expert=2)),
    ):
        matrix = anatomy.read_weight(model, site).clone()
        edit = RankReduction(site, rank_fraction=0.4, subspaces=2, partition="subspace")
        with applied_interventions(model, [edit], anatomy=anatomy):
            torch.testing.assert_close(anatomy.read_weight(model, site), expected(matrix, edit), atol=1e-6, rtol=0)


@pytest.mark.parametrize("partition", ["block", "subspace"])
def test_one_subspace_is_plain_reduction_bit_for_bit(partition: Any, tiny: Tiny) -> None:
    model = tiny("llama")
    edits = [RankReduction(UP, 0.3), RankReduction(UP, 0.3, subspaces=1, axis="input", partition=partition)]
    left = []
    for edit in edits:
        with applied_interventions(model, [edit]):
            left.append(up_of(model))
    assert torch.equal(left[0], left[1])
    assert not torch.equal(left[0], up_of(model))


@every_kind
def test_a_baked_checkpoint_and_a_recipe_that_was_written_hold_what_was_applied(
    kind: dict[str, Any], tiny: Tiny, tmp_path: Path
) -> None:
    model = tiny("llama")
    recipe = Recipe.of(model, [RankReduction(UP, 0.3, **kind)])
    with applied(model, recipe):
        wanted = up_of(model)
    assert not torch.equal(wanted, up_of(model))
    recipe.save(tmp_path / "facts")
    assert not (tmp_path / "facts" / "tensors.safetensors").exists()
    again = Recipe.load(tmp_path / "facts")
    assert again.interventions == recipe.interventions
    with applied(model, again):
        assert torch.equal(up_of(model), wanted)
    bake(model, recipe, tmp_path / "baked")
    baked = AutoModelForCausalLM.from_pretrained(tmp_path / "baked")
    assert torch.equal(up_of(baked), wanted)


@every_kind
def test_factors_travel_without_the_zeros_between_clusters_and_nothing_is_decomposed(
    kind: dict[str, Any], tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny("llama")
    edit = RankReduction(UP, 0.3, **kind)
    with applied_interventions(model, [edit]):
        wanted = up_of(model)
    Recipe.of(model, [edit]).with_factors(model).save(tmp_path / "facts")
    kept = load_file(tmp_path / "facts" / "tensors.safetensors")
    numbers = sum(own.numel() for own in kept.values() if own.is_floating_point())
    assert numbers == edit.numbers_kept((48, 32)) <= RankReduction(UP, 0.3).numbers_kept((48, 32)) == 9 * (48 + 32)
    assert any("clusters" in name for name in kept) == ("partition" in kind)
    recipe = Recipe.load(tmp_path / "facts")

    def never(*_: object, **__: object) -> None:
        raise AssertionError("something was computed anew")

    for place in ("linalg.cache.decompose", "linalg.parted.cluster_by_subspace", "linalg.parted.decompose"):
        monkeypatch.setattr(f"strop.{place}", never)
    with applied(model, recipe):
        torch.testing.assert_close(up_of(model), wanted, atol=1e-6, rtol=0)
    assert not torch.allclose(up_of(model), wanted, atol=1e-2)


@pytest.mark.parametrize("damage", ["left", "clusters moved", "clusters out of range", "clusters missing"])
def test_factors_that_are_something_else_are_refused(damage: str, tiny: Tiny, tmp_path: Path) -> None:
    model = tiny("llama")
    folder = tmp_path / "facts"
    edit = RankReduction(UP, 0.3, subspaces=3, partition="subspace")
    Recipe.of(model, [edit]).with_factors(model).save(folder)
    kept = load_file(folder / "tensors.safetensors")
    clusters = next(name for name in kept if "clusters" in name)
    left = next(name for name in kept if "left" in name)
    if damage == "left":
        kept[left][0] += 0.5
    elif damage == "clusters moved":
        kept[clusters] = (kept[clusters] + 1) % 3
    elif damage == "clusters out of range":
        kept[clusters][0] = 3
    else:
        del kept[clusters]
    save_file(kept, folder / "tensors.safetensors", metadata={"format": "pt"})
    with pytest.raises(RecipeError) as caught, applied(model, Recipe.load(folder)):
        pass
    assert ("not the components" if damage in ("left", "clusters moved") else "clusters") in str(caught.value)


def test_the_json_says_what_is_parted_and_how_large_it_is() -> None:
    edit = RankReduction(WeightSite(28, T.UP), 0.05, subspaces=4, axis="input", partition="subspace")
    entry = edit.to_json((1536, 576))
    assert entry == {
        "method": "rank_reduction", "layer": 28, "matrix_type": "up", "rank_fraction": 0.05, "rank": 8,
        "subspaces": 4, "axis": "input", "partition": "subspace", "numbers": 8 * (576 + 4 * 1536), "partition_bits": 1152,
    }  # fmt: skip
    assert RankReduction.from_json(entry) == edit
    assert 8 * (576 + 4 * 1536) <= 28 * (576 + 1536) < 9 * (576 + 4 * 1536)
    assert RankReduction.summarize([entry]) == {
        0: "layer 28 up: rank reduction to rank 8 in each of 4 clusters of input features "
        "(5.0 % kept: 53,760 numbers and 1,152 bits)"
    }
    assert RankReduction.brief([entry]) == "4 x rank 8"
    assert str(edit) == "layer 28 up, 5.00% of the rank kept in each of 4 clusters of input features"
    block = RankReduction(WeightSite(28, T.UP), 0.05, subspaces=4)
    assert (block.rank((1536, 576)), block.partition_bits((1536, 576))) == (15, 0)
    assert {"axis", "partition", "partition_bits"}.isdisjoint(block.to_json((1536, 576)))


def test_an_entry_of_an_earlier_version_reads_and_writes_as_it_did() -> None:
    entry = {"method": "rank_reduction", "layer": 28, "matrix_type": "up", "rank_fraction": 0.01, "rank": 5}
    edit = RankReduction.from_json(entry)
    assert (edit.subspaces, edit.axis, edit.partition) == (1, "output", "block")
    assert edit.to_json((1536, 576)) == entry


def test_several_subspaces_scale_no_singular_values() -> None:
    plain, parted = RankReduction(UP, 0.25), RankReduction(UP, 0.25, subspaces=2)
    assert isinstance(parted, ScalesSpectrum)
    assert parted.spectrum_scales({}, (48, 32)) is None
    scales = plain.spectrum_scales({}, (48, 32))
    assert scales is not None
    assert scales.sum() == 8


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"subspaces": 0}, "subspaces is a whole number from 1 to 32767, not 0"),
        ({"subspaces": 2.0}, "subspaces is a whole number from 1 to 32767, not 2.0"),
        ({"subspaces": 2**15}, "subspaces is a whole number from 1 to 32767, not 32768"),
        ({"subspaces": True}, "subspaces is a whole number from 1 to 32767, not True"),
        ({"subspaces": 2, "axis": "rows"}, "axis is one of output, input, not 'rows'"),
        ({"subspaces": 2, "partition": "kmeans"}, "partition is one of block, subspace, not 'kmeans'"),
    ],
    ids=str,
)
def test_what_means_nothing_is_refused_in_one_sentence(setting: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        RankReduction(UP, 0.25, **setting)
    assert str(caught.value) == said + "."


def test_more_subspaces_than_features_are_refused_with_the_matrix_named(tiny: Tiny) -> None:
    model = tiny("llama")
    said = "layer 1 up: A 48 x 32 matrix has 48 output features, which make 1 to 48 subspaces, not 49"
    with pytest.raises(UsageError, match=said):
        attach_interventions(model, [RankReduction(UP, 0.25, subspaces=49)])
    with pytest.raises(UsageError, match=said):
        Recipe.of(model, [RankReduction(UP, 0.25, subspaces=49)]).describe()


def test_factors_of_another_shape_are_refused_with_both(tiny: Tiny) -> None:
    edit = RankReduction(UP, 0.3, subspaces=2)
    tensors = [{"left": torch.zeros(48, 9), "right": torch.zeros(9, 32)}]
    with pytest.raises(
        InterventionError,
        match=r"\(48, 9\) and \(9, 32\) do not make a 48 x 32 matrix of rank 6 in each of 2 clusters",
    ):
        attach_interventions(tiny("llama"), [edit], tensors=tensors)
