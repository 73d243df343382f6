"""LASER's intervention on real module weights."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from strop.anatomy import Anatomy, MatrixType, WeightSite
from strop.errors import InterventionError, UsageError
from strop.interventions import RankReduction, applied_interventions, attach_interventions
from strop.linalg import SingularValueDecomposition, decompose

T = MatrixType
Tiny = Callable[..., nn.Module]
MODELS = ["llama", "phi3", "gpt2", "gpt_neox"]


def rank_of(matrix: Tensor) -> int:
    return int(torch.linalg.matrix_rank(matrix.double(), rtol=1e-5))


@pytest.mark.parametrize("model_type", MODELS)
@pytest.mark.parametrize("rank_fraction", [0.0, 0.1, 0.25, 0.5, 0.97])
def test_the_matrix_left_has_the_rank_asked_for_and_is_the_best_of_that_rank(
    model_type: str, rank_fraction: float, tiny: Tiny
) -> None:
    model = tiny(model_type)
    anatomy = Anatomy.of(model)
    for site in anatomy.sites(layers=[1]):
        original = anatomy.read_weight(model, site).clone()
        intervention = RankReduction(site, rank_fraction=rank_fraction)
        rank = intervention.rank(tuple(original.shape))
        with applied_interventions(model, [intervention]):
            edited = anatomy.read_weight(model, site).clone()
        assert rank_of(edited) == rank == int(rank_fraction * min(original.shape))
        torch.testing.assert_close(edited, decompose(original).recompose(rank), atol=1e-5, rtol=0)


def test_rank_zero_leaves_a_matrix_of_zeros(tiny: Tiny) -> None:
    model = tiny("gpt2")
    anatomy = Anatomy.of(model)
    site = WeightSite(1, T.VALUE)
    with applied_interventions(model, [RankReduction(site, rank_fraction=0.0)]):
        assert not anatomy.read_weight(model, site).any()
        assert anatomy.read_weight(model, WeightSite(1, T.KEY)).all()


@pytest.mark.parametrize("model_type", MODELS)
@pytest.mark.parametrize("matrix_type", [T.QUERY, T.KEY, T.VALUE, T.OUTPUT])
def test_an_edit_of_one_head_touches_only_that_head(model_type: str, matrix_type: MatrixType, tiny: Tiny) -> None:
    model = tiny(model_type)
    anatomy = Anatomy.of(model)
    grouped = matrix_type in (T.KEY, T.VALUE)
    count = anatomy.key_value_head_count if grouped else anatomy.head_count
    shares = [WeightSite(1, matrix_type, head=head) for head in range(count)]
    before = {site: anatomy.read_weight(model, site).clone() for site in [*shares, *anatomy.sites()]}
    with applied_interventions(model, [RankReduction(shares[1], rank_fraction=0.25)]):
        after = {site: anatomy.read_weight(model, site).clone() for site in before}
    changed = {site for site in before if not torch.equal(after[site], before[site])}
    assert changed == {shares[1], WeightSite(1, matrix_type)}
    assert rank_of(after[shares[1]]) == 2  # a quarter of a head of 8


@pytest.mark.parametrize("model_type", ["gpt2", "phi3", "gpt_neox"])
def test_two_edits_in_one_fused_parameter_both_land_and_both_come_off(model_type: str, tiny: Tiny) -> None:
    model = tiny(model_type)
    anatomy = Anatomy.of(model)
    query, key, value = (WeightSite(1, matrix_type) for matrix_type in (T.QUERY, T.KEY, T.VALUE))
    parameter = anatomy.parameter(model, query)
    assert parameter is anatomy.parameter(model, value)
    before, place = parameter.detach().clone(), parameter.data_ptr()
    key_before = anatomy.read_weight(model, key).clone()
    edits = [RankReduction(query, rank_fraction=0.1), RankReduction(value, rank_fraction=0.25)]
    ranks = [edit.rank(tuple(anatomy.read_weight(model, edit.site).shape)) for edit in edits]
    with applied_interventions(model, edits):
        assert [rank_of(anatomy.read_weight(model, edit.site)) for edit in edits] == ranks
        assert torch.equal(anatomy.read_weight(model, key), key_before)
    assert torch.equal(parameter, before)
    assert parameter.data_ptr() == place


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_reduced_in_float32_and_rounded_once(dtype: torch.dtype, tiny: Tiny) -> None:
    model = tiny("llama").to(dtype)
    anatomy = Anatomy.of(model)
    site = WeightSite(0, T.UP)
    expected = decompose(anatomy.read_weight(model, site).float()).recompose(8).to(dtype)
    with applied_interventions(model, [RankReduction(site, rank_fraction=0.25)]):
        assert torch.equal(anatomy.read_weight(model, site), expected)


def test_a_second_use_makes_no_decomposition(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny("llama")
    anatomy = Anatomy.of(model)
    edit = RankReduction(WeightSite(0, T.UP), rank_fraction=0.25)
    with applied_interventions(model, [edit]):
        first = anatomy.read_weight(model, edit.site).clone()

    def never(matrix: Tensor) -> SingularValueDecomposition:
        raise AssertionError("a decomposition was made")

    monkeypatch.setattr("strop.linalg.cache.decompose", never)
    with applied_interventions(model, [edit]):
        assert torch.equal(anatomy.read_weight(model, edit.site), first)


@pytest.mark.parametrize("rank_fraction", [1.0, -0.1, float("nan")])
def test_a_share_out_of_bounds_is_refused_when_the_intervention_is_made(rank_fraction: float) -> None:
    with pytest.raises(UsageError, match=rf"lies in \[0, 1\), not {rank_fraction}"):
        RankReduction(WeightSite(0, T.UP), rank_fraction=rank_fraction)


def test_factors_of_another_matrix_are_refused_with_their_shapes(tiny: Tiny) -> None:
    model = tiny("llama")
    tensors = [{"left": torch.zeros(48, 4), "right": torch.zeros(4, 32)}]
    with pytest.raises(
        InterventionError, match=r"factors of shapes \(48, 4\) and \(4, 32\) do not make a 48 x 32 matrix of rank 8"
    ):
        attach_interventions(model, [RankReduction(WeightSite(0, T.UP), rank_fraction=0.25)], tensors=tensors)


def test_an_intervention_reads_as_words() -> None:
    assert str(RankReduction(WeightSite(28, T.UP), rank_fraction=0.01)) == "layer 28 up, 1.00% of the rank kept"


def test_the_json_names_the_rank_a_fraction_means() -> None:
    edit = RankReduction(WeightSite(28, T.UP), rank_fraction=0.01)
    assert edit.to_json((1536, 576)) == {
        "method": "rank_reduction", "layer": 28, "matrix_type": "up", "rank_fraction": 0.01, "rank": 5,
    }  # fmt: skip
