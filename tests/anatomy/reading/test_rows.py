"""What each row of a projection does, against the model's own way to cut it."""

from collections.abc import Callable

import pytest
import torch
from tests.anatomy.reading.models import QKV, T, hooks_of, make
from torch import Tensor

from strop.anatomy.reading.rows import AttentionRow, GatedRow, attention_rows, gated_rows
from strop.anatomy.sites import MatrixType
from strop.errors import AnatomyError

Cut = Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]
CUTS: dict[str, tuple[str, str, str, Cut]] = {
    "gpt_neox": (
        "gpt_neox.layers", "attention.query_key_value", "attention.dense", lambda rows: rows.view(4, 3, 8).unbind(1)
    ),
    "gpt2": ("transformer.h", "attn.c_attn", "attn.c_proj", lambda rows: rows.view(3, 4, 8).unbind(0)),
    "phi3": (
        "model.layers", "self_attn.qkv_proj", "self_attn.o_proj",
        lambda rows: tuple(part.view(-1, 8) for part in rows.split((32, 16, 16))),
    ),
    "falcon-40b": (
        "transformer.h", "self_attention.query_key_value", "self_attention.dense",
        lambda rows: tuple(part.reshape(-1, 8) for part in rows.view(2, 4, 8).split((2, 1, 1), 1)),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CUTS)
def test_every_row_of_a_fused_matrix_serves_the_heads_it_is_cut_for(name: str) -> None:
    path, fused, output, cut = CUTS[name]
    model = make(name)
    block = model.get_submodule(path)[1]
    projection = block.get_submodule(fused)
    count = projection.bias.shape[0] if projection.bias is not None else projection.weight.shape[0]
    expected: dict[int, AttentionRow] = {}
    for part, rows in zip(QKV, cut(torch.arange(count)), strict=True):
        share = 4 // len(rows)
        for head, own in enumerate(rows.tolist()):
            heads = tuple(range(head * share, (head + 1) * share))
            expected |= dict.fromkeys(own, AttentionRow(part, heads))
    found = attention_rows(model, projection, block.get_submodule(output), range(count), head_size=8)
    assert dict(enumerate(found)) == expected


@pytest.mark.parametrize(
    ("name", "block", "paths", "output"),
    [
        ("bert", "bert.encoder.layer.1", "attention.self.{}", "attention.output.dense"),
        ("deberta-v2", "deberta.encoder.layer.1", "attention.self.{}_proj", "attention.output.dense"),
        ("albert", "albert.encoder.albert_layer_groups.0", "albert_layers.0.attention.{}", "albert_layers.0.attention.dense"),
        ("distilbert", "distilbert.transformer.layer.1", "attention.{:.1}_lin", "attention.out_lin"),
        ("llama", "model.layers.1", "self_attn.{:.1}_proj", "self_attn.o_proj"),
        ("opt", "model.decoder.layers.0", "self_attn.{:.1}_proj", "self_attn.out_proj"),
        ("t5", "encoder.block.0", "layer.0.SelfAttention.{:.1}", "layer.0.SelfAttention.o"),
        ("t5", "decoder.block.1", "layer.0.SelfAttention.{:.1}", "layer.0.SelfAttention.o"),
        ("t5", "decoder.block.1", "layer.1.EncDecAttention.{:.1}", "layer.1.EncDecAttention.o"),
    ],
)  # fmt: skip
def test_query_key_and_value_are_told_apart_where_each_has_a_module(
    name: str, block: str, paths: str, output: str
) -> None:
    model = make(name)
    part = model.get_submodule(block)
    for role in QKV:
        projection = part.get_submodule(paths.format(str(role)))
        found = attention_rows(model, projection, part.get_submodule(output), [9], head_size=8)
        grouped = name == "llama" and role is not T.QUERY
        assert found == (AttentionRow(role, (2, 3) if grouped else (1,)),)


def test_a_row_that_scales_what_a_head_took_in_is_neither_query_key_nor_value() -> None:
    model = make("llama")
    attention = model.model.layers[0].self_attn
    gate = torch.nn.Linear(32, 32)
    attention.gate = gate
    attention.register_forward_pre_hook(
        lambda part, _, named: setattr(part, "scale", gate(named["hidden_states"])), with_kwargs=True
    )
    attention.o_proj.register_forward_pre_hook(lambda _, arguments: (arguments[0] * attention.scale,), prepend=True)
    (found,) = attention_rows(model, gate, attention.o_proj, [9], head_size=8)
    assert (found.role, found.heads, str(found)) == (None, (1,), "neither query, key nor value")


def test_a_gate_bends_and_an_up_row_does_not() -> None:
    model = make("llama")
    mlp = model.model.layers[1].mlp
    assert gated_rows(model, mlp.gate_proj, mlp.down_proj, [0, 47]) == (GatedRow(T.GATE, 0), GatedRow(T.GATE, 47))
    assert gated_rows(model, mlp.up_proj, mlp.down_proj, [0, 47]) == (GatedRow(T.UP, 0), GatedRow(T.UP, 47))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_norm_before_the_matrix_that_reads_them_hides_no_role(dtype: torch.dtype) -> None:
    block = (model := make("bitnet", dtype=dtype)).model.layers[1]
    for path, expected in (
        ("q_proj", AttentionRow(T.QUERY, (1,))),
        ("k_proj", AttentionRow(T.KEY, (2, 3))),
        ("v_proj", AttentionRow(T.VALUE, (2, 3))),
    ):
        projection = block.self_attn.get_submodule(path)
        assert attention_rows(model, projection, block.self_attn.o_proj, [9], head_size=8) == (expected,)
    for path, role in (("gate_proj", T.GATE), ("up_proj", T.UP)):
        projection = block.mlp.get_submodule(path)
        assert gated_rows(model, projection, block.mlp.down_proj, [5]) == (GatedRow(role, 5),)


def test_a_gate_bends_where_what_enters_it_is_very_small() -> None:
    model = make("olmo2")  # no norm before the MLP, and embeddings of 0.02
    mlp = model.model.layers[0].mlp
    assert gated_rows(model, mlp.gate_proj, mlp.down_proj, [5]) == (GatedRow(T.GATE, 5),)
    assert gated_rows(model, mlp.up_proj, mlp.down_proj, [5]) == (GatedRow(T.UP, 5),)


def test_modules_that_no_pass_joins_are_refused_and_no_hook_stays() -> None:
    model = make("llama")
    above, below = model.model.layers[1].self_attn, model.model.layers[0].self_attn
    with pytest.raises(AnatomyError, match="does not go from the one module to the other"):
        attention_rows(model, above.q_proj, below.o_proj, [0], head_size=8)
    assert hooks_of(model) == 0


def test_a_row_that_no_head_feels_is_called_so() -> None:
    assert str(AttentionRow(MatrixType.VALUE, ())) == "value of no head"
    assert str(AttentionRow(MatrixType.VALUE, (2,))) == "value of head 2"
