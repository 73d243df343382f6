"""A layout that does not add up is refused with its sizes, never cut wrongly."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from strop.anatomy import Anatomy, Family, MatrixType, Spelling, WeightSite
from strop.errors import AnatomyError, UneditableWeightError

T = MatrixType
QKV = (T.QUERY, T.KEY, T.VALUE)
Tiny = Callable[..., nn.Module]


def anatomy_with(model: nn.Module, matrix_type: MatrixType, spelling: Spelling) -> Anatomy:
    return Anatomy.of(model, family=Family("own", (), "model.layers", {matrix_type: spelling}))


def packed(model: nn.Module, rows: int) -> nn.Linear:
    """Give the first block a fused matrix of that many rows."""
    model.model.layers[0].fused = nn.Linear(32, rows)
    return model.model.layers[0].fused


@pytest.mark.parametrize("rows", [63, 65, 70])
def test_stacked_heads_that_do_not_make_up_the_rows_are_refused(rows: int, tiny: Tiny) -> None:
    model = tiny("llama")
    fused, site = packed(model, rows), WeightSite(0, T.KEY)
    anatomy = anatomy_with(model, T.KEY, Spelling("fused", "stacked", QKV))
    complaint = rf"layer 0 key: fused has {rows} rows, .*query 4 heads of 8, key 2 heads of 8, value 2 heads of 8"
    before = fused.weight.detach().clone()
    for attempt in (
        lambda: anatomy.read_weight(model, site),
        lambda: anatomy.write_matrix(fused.weight.data, site, torch.zeros(16, 32)),
        lambda: anatomy.outputs_in(torch.zeros(2, rows), site),
    ):
        with pytest.raises(UneditableWeightError, match=complaint):
            attempt()
    assert torch.equal(fused.weight, before)


@pytest.mark.parametrize("packing", ["stacked", "interleaved"])
def test_halves_of_an_odd_number_of_rows_are_refused(packing: str, tiny: Tiny) -> None:
    model = tiny("llama")
    packed(model, 97)
    anatomy = anatomy_with(model, T.UP, Spelling("fused", packing, (T.GATE, T.UP)))
    with pytest.raises(UneditableWeightError, match="layer 0 up: fused has 97 rows"):
        anatomy.read_weight(model, WeightSite(0, T.UP))


@pytest.mark.parametrize("rows", [64, 96])
def test_grouped_heads_cannot_be_interleaved_one_by_one(rows: int, tiny: Tiny) -> None:
    model = tiny("llama")
    packed(model, rows)
    anatomy = anatomy_with(model, T.KEY, Spelling("fused", "interleaved", QKV))
    with pytest.raises(
        UneditableWeightError, match=rf"has {rows} rows, .* interleaved for 4 heads and 2 key/value heads"
    ):
        anatomy.read_weight(model, WeightSite(0, T.KEY))


def test_interleaved_heads_of_another_size_are_refused(tiny: Tiny) -> None:
    model = tiny("llama", num_key_value_heads=4)
    packed(model, 84)
    anatomy = anatomy_with(model, T.KEY, Spelling("fused", "interleaved", QKV))
    with pytest.raises(UneditableWeightError, match="has 84 rows, .* interleaved for 4 heads of 8"):
        anatomy.read_weight(model, WeightSite(0, T.KEY, head=1))


@pytest.mark.parametrize(("matrix_type", "shape"), [(T.QUERY, (30, 32)), (T.OUTPUT, (32, 30))])
def test_a_head_of_a_matrix_its_heads_do_not_make_up_is_refused_and_the_whole_is_not(
    matrix_type: MatrixType, shape: tuple[int, int], tiny: Tiny
) -> None:
    model = tiny("llama")
    model.model.layers[0].own = nn.Linear(shape[1], shape[0])
    anatomy = anatomy_with(model, matrix_type, Spelling("own"))
    assert anatomy.read_weight(model, WeightSite(0, matrix_type)).shape == shape
    with pytest.raises(
        UneditableWeightError,
        match=f"{matrix_type} head 1: 4 heads of 8 make 32, and the matrix has 30; edit it as a whole",
    ):
        anatomy.read_weight(model, WeightSite(0, matrix_type, head=1))


def test_heads_stacked_on_an_mlp_leave_it_the_rest(tiny: Tiny) -> None:
    model = tiny("llama")
    weight = packed(model, 64 + 2 * 48).weight
    spelling = Spelling("fused", "stacked", (*QKV, T.GATE, T.UP))
    for matrix_type, rows in ((T.VALUE, slice(48, 64)), (T.GATE, slice(64, 112)), (T.UP, slice(112, 160))):
        anatomy = anatomy_with(model, matrix_type, spelling)
        assert torch.equal(anatomy.read_weight(model, WeightSite(0, matrix_type)), weight[rows])


def test_a_model_without_heads_is_refused_by_what_its_config_lacks(described: Tiny) -> None:
    model = described("mamba", hidden_size=32, num_hidden_layers=1, state_size=4)
    family = Family("Mamba", ("mamba",), "backbone.layers", {T.UP: Spelling("mixer.in_proj")})
    with pytest.raises(AnatomyError, match="MambaConfig gives no num_attention_heads"):
        Anatomy.of(model, family=family)
