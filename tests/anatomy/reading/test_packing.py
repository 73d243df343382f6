"""How a fused matrix holds its parts, found by what a few of its rows do."""

from typing import Any

import pytest
import torch
from tests.anatomy.reading.models import GATE_UP, QKV, T, make
from torch import Tensor, nn

from strop.anatomy import Anatomy, MatrixType, WeightSite
from strop.anatomy.reading import read_model
from strop.anatomy.reading.packing import FoundPacking, attention_packing, gated_packing
from strop.errors import AnatomyError, SiteError

FUSED = "self_attention.query_key_value", "self_attention.dense"
BY_HEAD, BELOW = FoundPacking("interleaved", QKV), FoundPacking("stacked", QKV)


@pytest.mark.parametrize(
    ("name", "blocks", "paths", "groups", "expected"),
    [
        ("falcon-7b", "transformer.h", FUSED, 1, BELOW),
        ("falcon-rw", "transformer.h", FUSED, 4, BY_HEAD),
        ("falcon-40b", "transformer.h", FUSED, 2, BY_HEAD),
        ("bloom", "transformer.h", FUSED, 4, BY_HEAD),
        ("gpt_neox", "gpt_neox.layers", ("attention.query_key_value", "attention.dense"), 4, BY_HEAD),
        ("persimmon", "model.layers", ("self_attn.query_key_value", "self_attn.dense"), 4, BY_HEAD),
        ("mpt", "transformer.blocks", ("attn.Wqkv", "attn.out_proj"), 4, BELOW),
        ("gpt_bigcode", "transformer.h", ("attn.c_attn", "attn.c_proj"), 1, BELOW),
        ("gpt_bigcode-heads", "transformer.h", ("attn.c_attn", "attn.c_proj"), 4, BY_HEAD),
        ("gpt2", "transformer.h", ("attn.c_attn", "attn.c_proj"), 4, BELOW),
        ("phi3", "model.layers", ("self_attn.qkv_proj", "self_attn.o_proj"), 2, BELOW),
        ("modernbert", "model.layers", ("attn.Wqkv", "attn.Wo"), 4, BELOW),
        ("codegen", "transformer.h", ("attn.qkv_proj", "attn.out_proj"), 4, FoundPacking("interleaved", (T.QUERY, T.VALUE, T.KEY))),
    ],
)  # fmt: skip
def test_the_packing_is_found(
    name: str, blocks: str, paths: tuple[str, str], groups: int, expected: FoundPacking
) -> None:
    model = make(name)
    projection, output = (model.get_submodule(blocks)[0].get_submodule(path) for path in paths)
    sizes = {"head_count": 4, "key_value_head_count": groups, "head_size": 8}
    assert attention_packing(model, projection, output, **sizes) == expected


def test_it_is_found_in_half_precision() -> None:
    model = make("phi3", dtype=torch.bfloat16)
    attention, mlp = model.model.layers[1].self_attn, model.model.layers[1].mlp
    sizes = {"head_count": 4, "key_value_head_count": 2, "head_size": 8}
    assert attention_packing(model, attention.qkv_proj, attention.o_proj, **sizes) == BELOW
    assert gated_packing(model, mlp.gate_up_proj, mlp.down_proj, row_count=96) == FoundPacking("stacked", GATE_UP)


def test_heads_that_are_cut_by_fours_are_refused_with_what_was_seen() -> None:
    model = make("codegen-8")  # four parts, each with the queries, values and keys of two heads
    attention = model.transformer.h[0].attn
    with pytest.raises(AnatomyError) as caught:
        attention_packing(
            model, attention.qkv_proj, attention.out_proj, head_count=8, key_value_head_count=8, head_size=4
        )
    assert str(caught.value) == (
        "transformer.h.0.attn.qkv_proj holds its parts in no order Strop can tell; its blocks of rows serve as 0: query of "
        "head 0, 2: value of head 0, 4: key of head 0, 6: query of head 2, …."
    )


def test_what_cannot_be_told_is_left_alone_and_the_rest_is_read() -> None:
    model = make("codegen-8")
    found = read_model(model)
    assert found.unnamed == ("attn.qkv_proj",)
    assert list(found.family.matrices) == [MatrixType.OUTPUT, MatrixType.UP, MatrixType.DOWN]
    anatomy = Anatomy.of(model)
    assert {site.matrix_type for site in anatomy.sites()} == {MatrixType.OUTPUT, MatrixType.UP, MatrixType.DOWN}
    with pytest.raises(SiteError, match="layer 0 query"):
        anatomy.read_weight(model, WeightSite(0, MatrixType.QUERY))


class GatedMLP(nn.Module):
    """An MLP that cuts its fused matrix as it is told."""

    def __init__(self, packing: FoundPacking) -> None:
        super().__init__()
        self.both, self.down, self.packing = nn.Linear(32, 48), nn.Linear(24, 32), packing

    def forward(self, states: Tensor) -> Any:
        both = self.both(states)
        halves = both.chunk(2, -1) if self.packing.packing == "stacked" else (both[..., ::2], both[..., 1::2])
        parts = dict(zip(self.packing.packed, halves, strict=True))
        return self.down(nn.functional.silu(parts[T.GATE]) * parts[T.UP])


@pytest.mark.parametrize("packed", [GATE_UP, GATE_UP[::-1]])
@pytest.mark.parametrize("packing", ["stacked", "interleaved"])
def test_which_half_is_activated_and_how_the_halves_lie_is_found(packing: Any, packed: tuple[Any, ...]) -> None:
    model, expected = make("llama"), FoundPacking(packing, packed)
    mlp = model.model.layers[1].mlp = GatedMLP(expected).eval()
    assert gated_packing(model, mlp.both, mlp.down, row_count=48) == expected
