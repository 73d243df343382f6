"""Architectures nobody has described, and the descriptions people give of them."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.fixtures.opt import OPT
from tests.fixtures.unchecked import unchecked
from torch import nn
from transformers import AutoModel, LlamaConfig, LlamaForCausalLM

from strop.anatomy import Anatomy, Family, MatrixType, Spelling, WeightSite, read_family
from strop.errors import AnatomyError, UnknownArchitectureError, UsageError

T = MatrixType
Tiny = Callable[..., nn.Module]


OPT_SIZES = {
    "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "ffn_dim": 48, "word_embed_proj_dim": 32,
}  # fmt: skip
OPT_FILE = """
name: OPT
model_types: [opt]
blocks: model.decoder.layers
matrices:
  query: self_attn.q_proj
  key: self_attn.k_proj
  value: self_attn.v_proj
  output: self_attn.out_proj
  up: {path: fc1}
  down: {path: fc2, packing: whole}
"""


@pytest.fixture
def opt(described: Callable[..., nn.Module]) -> nn.Module:
    return described("opt", **OPT_SIZES)


class Stranger(LlamaForCausalLM):
    """A model whose matrices have names nobody would guess."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__(config)
        for block in self.model.layers:
            block.first, block.second = nn.Linear(32, 40), nn.Linear(40, 40)
            del block.self_attn, block.mlp


def test_an_unreadable_model_is_told_what_was_found_and_how_to_describe_it(tiny: Tiny) -> None:
    with pytest.raises(UnknownArchitectureError) as caught:
        Anatomy.of(Stranger(tiny("llama").config))
    message = str(caught.value)
    for part in (
        "Stranger (model_type 'llama') is not made as Strop reads a model.",
        "Found 3 blocks in model.layers",
        "first  Linear  (40, 32)",
        "second  Linear  (40, 40)",
        "blocks: model.layers",
        "block_returns: tuple",
        "--family FILE.yaml",
    ):
        assert part in message


def test_the_remedy_in_the_message_can_be_followed_in_python_and_in_yaml(opt: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "opt.yaml"
    path.write_text(OPT_FILE, encoding="utf-8")
    assert read_family(path) == OPT
    anatomy = Anatomy.of(opt, family=read_family(path))
    assert (anatomy.layer_count, anatomy.head_count, anatomy.head_size) == (3, 4, 8)
    assert len(anatomy.sites()) == 18
    assert anatomy.module_path(WeightSite(2, T.UP)) == "model.decoder.layers.2.fc1"
    assert torch.equal(anatomy.read_weight(opt, WeightSite(2, T.UP)), opt.model.decoder.layers[2].fc1.weight)


def test_a_model_without_its_lm_head_is_read_too(tiny: Tiny) -> None:
    bare = AutoModel.from_config(tiny("llama").config)
    anatomy = Anatomy.of(bare)
    assert anatomy.module_path(WeightSite(2, T.UP)) == "layers.2.mlp.up_proj"
    assert torch.equal(anatomy.read_weight(bare, WeightSite(2, T.UP)), bare.layers[2].mlp.up_proj.weight)


def described_as(spelling: Spelling) -> Family:
    return Family(name="OPT", model_types=("opt",), blocks="model.decoder.layers", matrices={T.UP: spelling})


def test_a_description_with_a_path_that_is_not_there_is_refused_by_path(opt: nn.Module) -> None:
    anatomy = unchecked(opt, described_as(Spelling("mlp.fc1")))
    with pytest.raises(AnatomyError, match=r"layer 0 up: the block has no mlp\.fc1, where a OPT block keeps it"):
        anatomy.read_weight(opt, WeightSite(0, T.UP))


def test_a_description_that_names_a_module_without_a_weight_is_refused_by_path(opt: nn.Module) -> None:
    anatomy = unchecked(opt, described_as(Spelling("self_attn")))
    with pytest.raises(AnatomyError, match=r"model\.decoder\.layers\.0\.self_attn has no weight"):
        anatomy.read_weight(opt, WeightSite(0, T.UP))


@pytest.mark.parametrize("settings", [{"packing": "stacked"}, {"packed": (T.QUERY, T.KEY)}])
def test_a_packing_without_its_parts_or_parts_without_a_packing_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(AnatomyError, match=r"attn\.qkv: a \w+ matrix goes with (its|no) parts"):
        Spelling("attn.qkv", **settings)


MINE = "name: mine\nblocks: h\nmatrices: {query: q}\n"


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("name: mine\nblocks: h\n", ", key matrices: Field required."),
        (f"{MINE}block: h\n", ", key block: there is no such key; write blocks."),
        (f"{MINE}causal: {{}}\n", ", key causal: Input should be a valid boolean."),
        (
            "name: mine\nblocks: h\nmatrices: {querry: q}\n",
            ", key matrices.querry: there is no such matrix type; write query.",
        ),
        (
            "name: mine\nblocks: h\nmatrices: {query: {path: q, packing: folded}}\n",
            ", key matrices.query.packing: Input should be 'whole', 'stacked' or 'interleaved', not 'folded'.",
        ),
        (
            "name: mine\nblocks: h\nmatrices: {query: [q, {pth: q}]}\n",
            ", key matrices.query.1.path: Field required.",
        ),
        (
            "name: mine\nblocks: h\nmatrices: {query: {path: q, packd: [key]}}\n",
            ", key matrices.query.packd: there is no such key; write packed.",
        ),
        (
            "name: mine\nblocks: h\nmatrices: {query: 3}\n",
            ", key matrices.query: a matrix is spelled by a path from a block on, by a mapping with a path, or by a list of these.",
        ),
        (
            f"{MINE}stacks: {{sideways: x}}\n",
            ", key stacks.sideways: Input should be 'encoder', 'decoder', 'vision' or 'cross', not 'sideways'.",
        ),
        (
            "name: mine\nblocks: h\nmatrices: {query: {path: q, packing: stacked}}\n",
            " does not describe a family: q: a stacked matrix goes with its parts.",
        ),
        (f"{MINE}name: yours\n", " is not YAML, line 4, column 1: the key name stands twice; keep one."),
        ("[not, a, mapping", " is not YAML, line 1, column 17: expected ',' or ']', but got '<stream end>'."),
        ("", " is empty or not a mapping; it needs at least name, blocks and matrices."),
    ],
)
def test_a_family_file_of_another_form_is_refused_in_one_sentence(content: str, complaint: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(UsageError) as caught:
        read_family(path)
    assert str(caught.value) == f"The family file {path}{complaint}"


def test_a_family_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"absent\.yaml cannot be read: No such file or directory"):
        read_family(tmp_path / "absent.yaml")
