"""Eigenpruning's intervention: chosen components gone, LASER's truncation as the special case of a suffix."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from strop.anatomy import Anatomy, MatrixType, WeightSite
from strop.errors import InterventionError, RecipeError, UsageError
from strop.interventions import (
    RankReduction,
    SingularValuePruning,
    applied_interventions,
    attach_interventions,
    intervention_from_json,
)
from strop.interventions.indices import parse_indices, spell_indices
from strop.linalg import decompose

T = MatrixType
Tiny = Callable[..., nn.Module]
MODELS = ["llama", "phi3", "gpt2", "gpt_neox"]
SITE = WeightSite(3, T.KEY, head=1)


def spectrum(matrix: Tensor) -> Tensor:
    return torch.linalg.svdvals(matrix.double())


@pytest.mark.parametrize("model_type", MODELS)
@pytest.mark.parametrize("removed", [(0,), (1, 4, 7), tuple(range(6))])
def test_what_is_left_has_the_other_components_and_no_more(
    removed: tuple[int, ...], model_type: str, tiny: Tiny
) -> None:
    model = tiny(model_type)
    anatomy = Anatomy.of(model)
    for site in [*anatomy.sites(layers=[1]), WeightSite(1, T.VALUE, head=1), WeightSite(1, T.OUTPUT, head=0)]:
        before = anatomy.read_weight(model, site).clone()
        with applied_interventions(model, [SingularValuePruning(site, removed)]):
            after = anatomy.read_weight(model, site).clone()
        kept = [value for index, value in enumerate(spectrum(before)) if index not in removed]
        expected = torch.tensor([*kept, *[0.0] * len(removed)], dtype=torch.float64)
        torch.testing.assert_close(spectrum(after), expected, atol=1e-5, rtol=1e-5)
        gone = before - after
        torch.testing.assert_close(gone.T @ after, torch.zeros_like(gone.T @ after), atol=1e-4, rtol=0)


@pytest.mark.parametrize("model_type", MODELS)
@pytest.mark.parametrize("rank_fraction", [0.0, 0.25, 0.9])
def test_a_rank_reduction_removes_a_suffix(model_type: str, rank_fraction: float, tiny: Tiny) -> None:
    model = tiny(model_type)
    anatomy = Anatomy.of(model)
    for site in (WeightSite(0, T.DOWN), WeightSite(2, T.QUERY, head=1)):
        reduction = RankReduction(site, rank_fraction)
        shape = tuple(anatomy.read_weight(model, site).shape)
        with applied_interventions(model, [reduction]):
            expected = anatomy.read_weight(model, site).clone()
        suffix = tuple(range(reduction.rank(shape), min(shape)))
        with applied_interventions(model, [SingularValuePruning(site, suffix)]):
            assert torch.equal(anatomy.read_weight(model, site), expected)


@pytest.mark.parametrize("removed", [(), (-1,), (-1, 2), (3, 2), (2, 2), (0, 1, 1)])
def test_indices_that_name_no_set_of_components_are_refused(removed: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match=r"layer 3 key head 1: removed lists at least one component.*none twice; not"):
        SingularValuePruning(SITE, removed)


def test_an_unknown_bias_is_refused_with_those_there_are() -> None:
    with pytest.raises(UsageError, match="layer 3 key head 1: bias is one of none, mean, position, not 'median'"):
        SingularValuePruning(SITE, (0,), bias="median")  # type: ignore[arg-type]


def test_a_component_the_matrix_has_not_is_refused_with_the_site_and_those_it_has(tiny: Tiny) -> None:
    model = tiny("llama")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for removed in ((32,), (0, 99)):
        with pytest.raises(UsageError, match=rf"layer 1 up.*components 0 to 31, not {removed[-1]}"):
            attach_interventions(model, [SingularValuePruning(WeightSite(1, T.UP), removed)])
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_factors_of_another_matrix_are_refused_with_their_shapes(tiny: Tiny) -> None:
    tensors = [{"left": torch.zeros(48, 4), "right": torch.zeros(4, 32)}]
    with pytest.raises(InterventionError, match=r"\(48, 4\) and \(4, 32\) are not 3 components of a 48 x 32 matrix"):
        attach_interventions(tiny("llama"), [SingularValuePruning(WeightSite(0, T.UP), (0, 1, 9))], tensors=tensors)


def test_the_factors_are_what_is_removed() -> None:
    matrix = torch.randn(12, 8, generator=torch.Generator().manual_seed(0))
    edit = SingularValuePruning(WeightSite(0, T.UP), (1, 5))
    factors = edit.precomputed(matrix, decompose=decompose)
    assert {name: tuple(tensor.shape) for name, tensor in factors.items()} == {"left": (12, 2), "right": (2, 8)}
    edited = edit.edit(matrix, decompose=decompose, tensors={})
    torch.testing.assert_close(factors["left"] @ factors["right"], matrix - edited, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("removed", "bias", "words"),
    [
        ((4,), "none", "layer 3 key head 1, 1 singular value removed (4)"),
        ((0, 1, 2, 9), "mean", "layer 3 key head 1, 4 singular values removed (0-2,9), mean bias"),
        ((0, 1), "position", "layer 3 key head 1, 2 singular values removed (0-1), position bias"),
        (
            tuple(range(0, 60, 2)),
            "none",
            "layer 3 key head 1, 30 singular values removed (0,2,4,6,8,10,12,14,16,18,20,22,24,26,...)",
        ),
    ],
)
def test_an_intervention_reads_as_words(removed: tuple[int, ...], bias: Any, words: str) -> None:
    assert str(SingularValuePruning(SITE, removed, bias=bias)) == words


def test_the_json_says_how_many_of_how_many_are_removed() -> None:
    assert SingularValuePruning(SITE, (0, 1, 2, 9), bias="mean").to_json((64, 576)) == {
        "method": "singular_value_pruning", "layer": 3, "matrix_type": "key", "head": 1, "removed": "0-2,9",
        "removed_count": 4, "full_rank": 64, "bias": "mean",
    }  # fmt: skip


ascending = st.sets(st.integers(0, 3000), min_size=1).map(lambda indices: tuple(sorted(indices)))


@given(ascending, st.sampled_from(["none", "mean", "position"]))
def test_an_intervention_is_read_back_from_its_json(removed: tuple[int, ...], bias: Any) -> None:
    edit = SingularValuePruning(SITE, removed, bias=bias)
    assert intervention_from_json(edit.to_json((4096, 4096))) == edit


ENTRY = {"method": "singular_value_pruning", "layer": 3, "matrix_type": "up", "removed": "0-3,17", "bias": "none"}


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"removed": ""}, "removed lists at least one component"),
        ({"removed": [0, 1]}, "removed is a text such as 0-3,17, not [0, 1]"),
        ({"removed": "0-x"}, "'0-x' does not name components"),
        ({"removed": "3,1"}, "in ascending order"),
        ({"bias": "median"}, "bias is one of none, mean, position, not 'median'"),
        ({"bias": None}, "bias is one of none, mean, position, not 'None'"),
        ({"layer": True}, "layer"),
    ],
)
def test_an_entry_that_makes_no_pruning_is_refused_with_its_reason(change: dict[str, Any], complaint: str) -> None:
    with pytest.raises(RecipeError) as caught:
        intervention_from_json({**ENTRY, **change})
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_entry_without_its_components_is_refused_by_the_fields_name() -> None:
    with pytest.raises(RecipeError, match="lacks 'removed'"):
        intervention_from_json({name: value for name, value in ENTRY.items() if name != "removed"})


# Indices as text


@given(st.sets(st.integers(0, 5000)).map(sorted))
def test_indices_are_read_back_from_their_text(indices: list[int]) -> None:
    assert parse_indices(spell_indices(indices)) == tuple(indices)


@given(st.integers(0, 5000), st.integers(0, 5000))
def test_a_run_is_spelt_by_its_ends(first: int, count: int) -> None:
    text = spell_indices(range(first, first + count + 1))
    assert text == (f"{first}-{first + count}" if count else f"{first}")


@given(st.text(alphabet="0123456789-, x", max_size=12))
def test_a_text_names_ascending_indices_or_is_refused(text: str) -> None:
    try:
        found = parse_indices(text)
    except UsageError:
        return
    assert list(found) == sorted(set(found))
    assert parse_indices(spell_indices(found)) == found


@pytest.mark.parametrize(
    "text", [",", "1,", ",1", "1,,2", "-1", "1-", "2-1", "1,1", "1-3,3", "3,1", " 1", "1 ", "٣", "x"]
)
def test_a_text_that_names_no_components_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="does not name components"):
        parse_indices(text)


def test_a_range_that_no_matrix_could_have_is_refused_and_not_built() -> None:
    with pytest.raises(UsageError, match="'0-99999999999999' is named, and the matrix has components 0 to"):
        parse_indices("0-99999999999999")
