"""A layout that does not add up is refused with its sizes, never cut wrongly."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.fixtures.unchecked import unchecked
from torch import nn
from transformers import (
    FalconConfig,
    FalconForCausalLM,
    GPTBigCodeConfig,
    GPTBigCodeForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
)

from strop.anatomy import Anatomy, Family, MatrixType, Spelling, WeightSite
from strop.errors import AnatomyError, UneditableWeightError

T = MatrixType
QKV = (T.QUERY, T.KEY, T.VALUE)
Tiny = Callable[..., nn.Module]


def anatomy_with(model: nn.Module, matrix_type: MatrixType, spelling: Spelling) -> Anatomy:
    return unchecked(model, Family("own", (), "model.layers", {matrix_type: spelling}))


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


def test_grouped_heads_cannot_be_interleaved_one_by_one(tiny: Tiny) -> None:
    model = tiny("llama")
    packed(model, 96)
    anatomy = anatomy_with(model, T.KEY, Spelling("fused", "interleaved", QKV))
    with pytest.raises(
        UneditableWeightError, match="has 96 rows, .* interleaved for 4 heads and 2 key/value heads of 8"
    ):
        anatomy.read_weight(model, WeightSite(0, T.KEY))


@pytest.mark.parametrize("packed_as", [QKV, (T.VALUE, T.QUERY, T.KEY)])
def test_a_group_holds_its_query_heads_its_key_and_its_value(packed_as: tuple[MatrixType, ...], tiny: Tiny) -> None:
    model = tiny("llama")  # 4 heads of 8, which share 2 keys and values
    weight = packed(model, 64).weight
    groups = weight.view(2, 4, 8, 32)
    first = {
        part: sum(2 if each is T.QUERY else 1 for each in packed_as[:index]) for index, part in enumerate(packed_as)
    }
    for matrix_type, share in ((T.QUERY, 2), (T.KEY, 1), (T.VALUE, 1)):
        anatomy = anatomy_with(model, matrix_type, Spelling("fused", "interleaved", packed_as))
        own = groups[:, first[matrix_type] : first[matrix_type] + share]
        whole = WeightSite(0, matrix_type)
        assert torch.equal(anatomy.read_weight(model, whole), own.reshape(-1, 32))
        assert torch.equal(anatomy.outputs_in(weight.T, whole), own.reshape(-1, 32).T)
        for head in range(2 * share):
            site = WeightSite(0, matrix_type, head=head)
            assert torch.equal(anatomy.read_weight(model, site), own[head // share, head % share])
        copy, drawn = weight.detach().clone(), torch.randn(2 * share * 8, 32)
        anatomy.write_matrix(copy, whole, drawn)
        assert torch.equal(anatomy.matrix_in(copy, whole), drawn)
        assert (copy != weight).any(1).sum() == 2 * share * 8


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


def test_a_model_without_heads_has_none_to_edit(described: Tiny) -> None:
    model = described("mamba", hidden_size=32, num_hidden_layers=1, state_size=4)
    anatomy = Anatomy.of(model)
    assert (anatomy.head_count, anatomy.key_value_head_count, anatomy.head_size) == (0, 0, 0)
    assert torch.equal(
        anatomy.read_weight(model, WeightSite(0, T.MIXER_IN)), model.backbone.layers[0].mixer.in_proj.weight
    )


def test_attention_without_heads_is_refused_by_what_the_config_lacks(described: Tiny) -> None:
    model = described("mamba", hidden_size=32, num_hidden_layers=1, state_size=4)
    family = Family("Mamba", ("mamba",), "backbone.layers", {T.OUTPUT: Spelling("mixer.out_proj")})
    with pytest.raises(AnatomyError, match="MambaConfig gives no num_attention_heads"):
        Anatomy.of(model, family=family)


MULTI_QUERY = {"multi_query": True, "new_decoder_architecture": False}
MULTI_HEAD = {"multi_query": False, "new_decoder_architecture": False}


def falcon(packing: Any, **settings: Any) -> tuple[Any, Anatomy]:
    config = FalconConfig(
        vocab_size=32, hidden_size=32, num_hidden_layers=1, num_attention_heads=4, alibi=False, **settings
    )
    model = FalconForCausalLM(config)
    spelled = {part: Spelling("self_attention.query_key_value", packing, QKV) for part in QKV}
    return model, Anatomy.of(
        model, family=Family("Falcon", ("falcon",), "transformer.h", spelled, block_returns="tuple")
    )


@pytest.mark.parametrize("settings", [MULTI_HEAD, {"new_decoder_architecture": True, "num_kv_heads": 2}])
def test_a_falcon_that_keeps_heads_together_is_not_read_as_stacked(settings: dict[str, Any]) -> None:
    with pytest.raises(AnatomyError, match="of each head together"):
        falcon("stacked", **settings)


@pytest.mark.parametrize(
    ("settings", "packing", "key_heads"),
    [
        (MULTI_QUERY, "stacked", 1),
        (MULTI_HEAD, "interleaved", 4),
        ({"new_decoder_architecture": True, "num_kv_heads": 4}, "interleaved", 4),
        ({"new_decoder_architecture": True, "num_kv_heads": 2}, "interleaved", 2),
        ({"new_decoder_architecture": True, "num_kv_heads": 1}, "interleaved", 1),
    ],
)
def test_each_of_falcons_layouts_is_read_as_the_model_cuts_it(
    settings: dict[str, Any], packing: str, key_heads: int
) -> None:
    model, anatomy = falcon(packing, **settings)
    attention = model.transformer.h[0].self_attention
    states = torch.randn(1, 3, 32)
    cut = attention._split_heads(
        attention.query_key_value(states)
    )  # (1, 3, heads, 8), keys and values once for each query
    for matrix_type, theirs in zip(QKV, cut, strict=True):
        count = 4 if matrix_type is T.QUERY else key_heads
        mine = states @ anatomy.read_weight(model, WeightSite(0, matrix_type)).T
        torch.testing.assert_close(mine.view(1, 3, count, 8), theirs[:, :, :: theirs.shape[2] // count])
        last = states @ anatomy.read_weight(model, WeightSite(0, matrix_type, head=count - 1)).T
        torch.testing.assert_close(last, theirs[:, :, -1])


def test_gpt_bigcode_has_one_key_and_one_value_for_all_heads() -> None:
    config = GPTBigCodeConfig(vocab_size=32, n_embd=32, n_layer=1, n_head=4, bos_token_id=0, eos_token_id=0)
    model = GPTBigCodeForCausalLM(config)
    spelled = {part: Spelling("attn.c_attn", "stacked", QKV) for part in QKV}
    anatomy = Anatomy.of(model, family=Family("BigCode", ("gpt_bigcode",), "transformer.h", spelled))
    rows = model.transformer.h[0].attn.c_attn.weight.split((32, 8, 8))
    for matrix_type, own in zip(QKV, rows, strict=True):
        assert torch.equal(anatomy.read_weight(model, WeightSite(0, matrix_type)), own)


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
