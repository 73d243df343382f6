"""A layout that does not add up is refused with its sizes, never cut wrongly."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from transformers import FalconConfig, FalconForCausalLM, MixtralConfig, MixtralForCausalLM

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


def test_attention_without_heads_is_refused_by_what_the_config_lacks(described: Tiny) -> None:
    model = described("mamba", hidden_size=32, num_hidden_layers=1, state_size=4)
    family = Family("Mamba", ("mamba",), "backbone.layers", {T.OUTPUT: Spelling("mixer.out_proj")})
    with pytest.raises(AnatomyError, match="MambaConfig gives no num_attention_heads"):
        Anatomy.of(model, family=family)


@pytest.mark.parametrize(
    ("settings", "packing", "said"),
    [
        (
            {"multi_query": True, "new_decoder_architecture": False},
            "stacked",
            "has 48 rows, which its parts do not make up",
        ),
        ({"multi_query": True, "new_decoder_architecture": False}, "interleaved", "has 48 rows, which cannot be"),
        ({"multi_query": False, "new_decoder_architecture": False}, "stacked", "of each head together"),
        ({"multi_query": False, "new_decoder_architecture": False}, "interleaved", None),
        ({"new_decoder_architecture": True, "num_kv_heads": 4}, "stacked", "of each head together"),
        ({"new_decoder_architecture": True, "num_kv_heads": 4}, "interleaved", None),
        ({"new_decoder_architecture": True, "num_kv_heads": 2}, "stacked", "of each head together"),
        ({"new_decoder_architecture": True, "num_kv_heads": 2}, "interleaved", "has 64 rows, which cannot be"),
    ],
)
def test_each_of_falcons_layouts_is_read_as_it_is_or_refused(
    settings: dict[str, Any], packing: Any, said: str | None
) -> None:
    config = FalconConfig(
        vocab_size=32, hidden_size=32, num_hidden_layers=1, num_attention_heads=4, alibi=False, **settings
    )
    model = FalconForCausalLM(config)
    spelled = {part: Spelling("self_attention.query_key_value", packing, QKV) for part in QKV}
    family = Family("Falcon", ("falcon",), "transformer.h", spelled)
    if said is not None:
        with pytest.raises((AnatomyError, UneditableWeightError), match=said):
            Anatomy.of(model, family=family).read_weight(model, WeightSite(0, T.KEY))
        return
    attention = model.transformer.h[0].self_attention
    found = Anatomy.of(model, family=family).read_weight(model, WeightSite(0, T.KEY))
    states = torch.randn(1, 3, 32)
    _, key, _ = attention._split_heads(attention.query_key_value(states))
    torch.testing.assert_close(states @ found.T, key.reshape(1, 3, 32))


def test_a_router_does_not_pass_for_a_gate() -> None:
    config = MixtralConfig(
        vocab_size=32, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4,
        num_key_value_heads=2, num_local_experts=4,
    )  # fmt: skip
    model = MixtralForCausalLM(config)
    anatomy = Anatomy.of(model, family=Family("Mixtral", ("mixtral",), "model.layers", {T.GATE: Spelling("mlp.gate")}))
    with pytest.raises(
        UneditableWeightError, match="mlp.gate.weight is a router, with a row for each of 4 experts, and"
    ):
        anatomy.read_weight(model, WeightSite(0, T.GATE))
