"""The matrices of a mixture's experts: slices of one parameter, or modules of their own."""

import types
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.fixtures.unchecked import unchecked
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from strop.analysis import describe_matrices
from strop.anatomy import Anatomy, Family, MatrixType, Spelling, Stream, StreamSite, Tap, WeightSite, read_family
from strop.errors import AnatomyError, SiteError, UneditableWeightError, UsageError
from strop.export import bake
from strop.interventions import RankReduction
from strop.recipe import Recipe, applied

T = MatrixType
Described = Callable[..., nn.Module]
ATTENTION = {
    T.QUERY: Spelling("self_attn.q_proj"),
    T.KEY: Spelling("self_attn.k_proj"),
    T.VALUE: Spelling("self_attn.v_proj"),
    T.OUTPUT: Spelling("self_attn.o_proj"),
}
GATE_UP = Spelling("mlp.experts", parameter="gate_up_proj", experts="stacked", packing="stacked", packed=(T.GATE, T.UP))
GATE_UP_BY_ROW = Spelling(
    "mlp.experts", "interleaved", (T.GATE, T.UP), transposed=True, parameter="gate_up_proj", experts="stacked"
)
STACKED = {T.GATE: GATE_UP, T.UP: GATE_UP, T.DOWN: Spelling("mlp.experts", parameter="down_proj", experts="stacked")}
TRANSPOSED = {
    T.GATE: GATE_UP_BY_ROW,
    T.UP: GATE_UP_BY_ROW,
    T.DOWN: Spelling("mlp.experts", transposed=True, parameter="down_proj", experts="stacked"),
}
LISTED = {
    matrix_type: Spelling(f"block_sparse_moe.experts.{{expert}}.{name}")
    for matrix_type, name in ((T.GATE, "w1"), (T.UP, "w3"), (T.DOWN, "w2"))
}
SIZES = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
    "intermediate_size": 48, "max_position_embeddings": 128, "num_experts_per_tok": 2,
}  # fmt: skip
MODELS = {
    "mixtral": {**SIZES, "num_local_experts": 3},
    "qwen3_moe": {**SIZES, "num_experts": 3, "moe_intermediate_size": 24, "mlp_only_layers": [0]},
    "gpt_oss": {
        **SIZES, "num_local_experts": 3, "layer_types": ["full_attention"] * 2,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    },
}  # fmt: skip
FAMILIES = {
    "mixtral": Family("Mixtral", ("mixtral",), "model.layers", {**ATTENTION, **STACKED}),
    "qwen3_moe": Family("Qwen3 MoE", ("qwen3_moe",), "model.layers", {**ATTENTION, **STACKED}),
    "gpt_oss": Family("GPT-OSS", ("gpt_oss",), "model.layers", {**ATTENTION, **TRANSPOSED}),
}
IDS = torch.arange(1, 33)[None]


@pytest.fixture(params=MODELS)
def mixture(request: pytest.FixtureRequest, described: Described) -> tuple[nn.Module, Family]:
    return described(request.param, **MODELS[request.param]), FAMILIES[request.param]


@pytest.fixture
def mixtral(described: Described) -> nn.Module:
    return described("mixtral", **MODELS["mixtral"])


class Expert(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w1, self.w2, self.w3 = nn.Linear(32, 48), nn.Linear(48, 32), nn.Linear(32, 48)


@pytest.fixture
def listed(mixtral: nn.Module) -> tuple[nn.Module, Family]:
    """A model whose experts are modules in a list, as they were before transformers stacked them."""
    for block in mixtral.model.layers:
        block.block_sparse_moe = nn.Module()
        block.block_sparse_moe.experts = nn.ModuleList(Expert() for _ in range(3))
        del block.mlp
    return mixtral, Family("Mixtral", ("mixtral",), "model.layers", {**ATTENTION, **LISTED})


def stored(model: nn.Module, site: WeightSite) -> Tensor:
    """What the model's own forward takes for the matrix, (out, in)."""
    experts = model.model.layers[site.layer].mlp.experts
    if site.matrix_type is T.DOWN:
        own = experts.down_proj[site.expert]
        return own.T if model.config.model_type == "gpt_oss" else own
    packed = experts.gate_up_proj[site.expert]
    if model.config.model_type == "gpt_oss":
        return packed[:, (0 if site.matrix_type is T.GATE else 1) :: 2].T
    gate, up = packed.chunk(2)
    return gate if site.matrix_type is T.GATE else up


def logits(model: nn.Module) -> Tensor:
    with torch.no_grad():
        return model(input_ids=IDS, use_cache=False).logits


def test_each_expert_has_an_address_of_its_own_and_a_layer_without_experts_has_none(
    mixture: tuple[nn.Module, Family],
) -> None:
    model, family = mixture
    anatomy = Anatomy.of(model, family=family)
    dense = 1 if family.name == "Qwen3 MoE" else 0
    for layer in range(2):
        experts = [] if layer < dense else [0, 1, 2]
        for matrix_type in (T.GATE, T.UP, T.DOWN):
            sites = anatomy.sites(layers=[layer], matrix_types=[matrix_type])
            assert sites == tuple(WeightSite(layer, matrix_type, expert=expert) for expert in experts)
        assert anatomy.sites(layers=[layer], matrix_types=[T.KEY]) == (WeightSite(layer, T.KEY),)
    assert len(anatomy.sites()) == 2 * 4 + (2 - dense) * 9


def test_an_experts_matrix_is_the_slice_its_forward_uses_bit_for_bit(mixture: tuple[nn.Module, Family]) -> None:
    model, family = mixture
    anatomy = Anatomy.of(model, family=family)
    for site in anatomy.sites(matrix_types=[T.GATE, T.UP, T.DOWN]):
        assert torch.equal(anatomy.read_weight(model, site), stored(model, site)), site


def test_what_is_written_to_an_expert_is_what_is_read_and_nothing_else_changes(
    mixture: tuple[nn.Module, Family],
) -> None:
    model, family = mixture
    anatomy = Anatomy.of(model, family=family)
    sites = anatomy.sites(layers=[1], matrix_types=[T.GATE, T.UP, T.DOWN])
    for site in sites:
        before = {other: anatomy.read_weight(model, other).clone() for other in sites}
        new = torch.randn(before[site].shape)
        anatomy.write_matrix(anatomy.parameter(model, site).data, site, new)
        assert torch.equal(stored(model, site), new)
        assert all(torch.equal(anatomy.read_weight(model, s), before[s]) for s in sites if s != site), site


def test_the_experts_matrices_are_the_parameter_and_no_entry_belongs_to_two(mixture: tuple[nn.Module, Family]) -> None:
    model, family = mixture
    anatomy = Anatomy.of(model, family=family)
    sites = anatomy.sites(layers=[1], matrix_types=[T.GATE, T.UP, T.DOWN])
    tallies = {id(p): torch.zeros_like(p) for p in (anatomy.parameter(model, site) for site in sites)}
    for site in sites:
        tally = tallies[id(anatomy.parameter(model, site))]
        anatomy.write_matrix(tally, site, anatomy.matrix_in(tally, site) + 1)
    assert len(tallies) == 2
    assert all(torch.equal(tally, torch.ones_like(tally)) for tally in tallies.values())


def test_an_expert_is_edited_saved_baked_and_given_back(mixture: tuple[nn.Module, Family], tmp_path: Path) -> None:
    model, family = mixture
    anatomy = Anatomy.of(model, family=family)
    edits = [RankReduction(WeightSite(1, t, expert=e), rank_fraction=0.1) for t, e in ((T.UP, 0), (T.DOWN, 2))]
    anatomy.refuse_tied(model, [edit.site for edit in edits])
    before, plain = {name: p.detach().clone() for name, p in model.named_parameters()}, logits(model)
    recipe = Recipe.of(model, edits, family=family).with_factors(model, family=family)
    recipe.save(tmp_path / "recipe")
    assert Recipe.load(tmp_path / "recipe") == recipe
    with applied(model, Recipe.load(tmp_path / "recipe"), family=family):
        expected = logits(model)
        for edit in edits:
            assert torch.linalg.matrix_rank(stored(model, edit.site)) == edit.rank(stored(model, edit.site).shape)
        untouched = WeightSite(1, T.GATE, expert=0)
        assert torch.equal(stored(model, untouched), anatomy.matrix_in(before[name_of(anatomy, untouched)], untouched))
    assert not torch.allclose(expected, plain, atol=1e-4)
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    bake(model, recipe, tmp_path / "baked", family=family)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "baked", dtype=torch.float32).eval()
    torch.testing.assert_close(logits(loaded), expected, atol=1e-5, rtol=1e-5)


def name_of(anatomy: Anatomy, site: WeightSite) -> str:
    return f"{anatomy.module_path(site)}.{anatomy.spelling(site).parameter}"


def test_experts_that_are_modules_are_read_written_and_tapped(listed: tuple[nn.Module, Family]) -> None:
    model, family = listed
    anatomy = Anatomy.of(model, family=family)
    assert len(anatomy.sites()) == 2 * (4 + 9)
    site = WeightSite(1, T.DOWN, expert=2)
    module = model.model.layers[1].block_sparse_moe.experts[2].w2
    assert anatomy.module_path(site) == "model.layers.1.block_sparse_moe.experts.2.w2"
    assert anatomy.module(model, site) is module
    assert torch.equal(anatomy.read_weight(model, site), module.weight)
    anatomy.write_matrix(anatomy.parameter(model, site).data, site, torch.ones(32, 48))
    assert torch.equal(module.weight, torch.ones(32, 48))
    with Tap(model, anatomy, [site]) as tap:
        module(torch.ones(5, 48))
    assert anatomy.inputs_in(tap.only[module].inputs, site).shape == (5, 48)
    assert anatomy.outputs_in(tap.only[module].output, site).shape == (5, 32)


def test_a_tied_parameter_of_experts_is_refused(mixtral: nn.Module) -> None:
    layers = mixtral.model.layers
    layers[0].mlp.experts.down_proj = layers[1].mlp.experts.down_proj
    with pytest.raises(UneditableWeightError, match=r"layers\.0\.mlp\.experts\.down_proj is tied to model\.layers\.1"):
        Anatomy.of(mixtral, family=FAMILIES["mixtral"]).refuse_tied(mixtral, [WeightSite(1, T.DOWN, expert=0)])


# Addresses and descriptions that do not fit


@pytest.mark.parametrize(
    ("site", "complaint"),
    [
        (WeightSite(0, T.UP), "layer 0 up: each of the block's 3 experts has its own; choose one of 0 to 2"),
        (WeightSite(0, T.UP, expert=3), "layer 0 up expert 3: the block has experts 0 to 2"),
        (
            WeightSite(0, T.KEY, expert=1),
            "layer 0 key expert 1: all experts share the key matrix; leave the expert out",
        ),
    ],
)
def test_an_expert_that_is_missing_too_high_or_out_of_place_is_refused(
    site: WeightSite, complaint: str, mixtral: nn.Module
) -> None:
    with pytest.raises(SiteError, match=complaint):
        Anatomy.of(mixtral, family=FAMILIES["mixtral"]).read_weight(mixtral, site)


def test_a_layer_without_experts_is_refused_with_what_it_lacks(described: Described) -> None:
    model = described("qwen3_moe", **MODELS["qwen3_moe"])
    with pytest.raises(
        SiteError, match="layer 0 up expert 1: this layer has no up matrix, as others have; it has query,"
    ):
        Anatomy.of(model, family=FAMILIES["qwen3_moe"]).read_weight(model, WeightSite(0, T.UP, expert=1))


def test_a_description_that_finds_no_experts_at_all_is_refused_rather_than_silently_empty(mixtral: nn.Module) -> None:
    family = Family("Mixtral", (), "model.layers", LISTED)
    missing = r"the block has no block_sparse_moe\.experts\.0\.w1, where a Mixtral block keeps"
    with pytest.raises(
        AnatomyError, match=f"The family Mixtral does not describe this MixtralForCausalLM: .*{missing}"
    ):
        Anatomy.of(mixtral, family=family)
    with pytest.raises(SiteError, match=missing):
        unchecked(mixtral, family).sites()


def test_one_experts_states_cannot_be_seen_where_a_parameter_holds_them_all(mixtral: nn.Module) -> None:
    anatomy, site = Anatomy.of(mixtral, family=FAMILIES["mixtral"]), WeightSite(1, T.DOWN, expert=2)
    complaint = (
        r"layer 1 down expert 2: what goes in and out of one expert cannot be seen, for model\.layers\.1\.mlp\.experts"
    )
    for look in (
        lambda: anatomy.inputs_in(torch.ones(2, 48), site),
        lambda: anatomy.outputs_in(torch.ones(2, 32), site),
        lambda: anatomy.output_features(anatomy.parameter(mixtral, site), site),
        lambda: Tap(mixtral, anatomy, [site]),
    ):
        with pytest.raises(AnatomyError, match=complaint):
            look()
    with pytest.raises(SiteError, match="layer 1 mlp: several experts make these states.*choose the stream block"):
        anatomy.stream_module(mixtral, StreamSite(1, Stream.MLP))
    assert anatomy.stream_module(mixtral, StreamSite(1)) is mixtral.model.layers[1]


def test_a_parameter_of_another_number_of_axes_is_refused_with_its_shape(mixtral: nn.Module) -> None:
    one = {T.DOWN: Spelling("mlp.experts", parameter="down_proj")}
    with pytest.raises(
        UneditableWeightError, match=r"down_proj has the shape \(3, 32, 48\), which is not that of one mat"
    ):
        Anatomy.of(mixtral, family=Family("own", (), "model.layers", one)).read_weight(mixtral, WeightSite(0, T.DOWN))
    many = {T.QUERY: Spelling("self_attn.q_proj", experts="stacked")}
    with pytest.raises(UneditableWeightError, match=r"q_proj\.weight has the shape \(32, 32\).*of several experts"):
        Anatomy.of(mixtral, family=Family("own", (), "model.layers", many)).read_weight(
            mixtral, WeightSite(0, T.QUERY, expert=0)
        )


def test_quantised_experts_are_refused_with_their_method(mixtral: nn.Module) -> None:
    experts = mixtral.model.layers[0].mlp.experts
    del experts.down_proj
    experts.register_buffer("down_proj_blocks", torch.zeros(4, 32, 24, dtype=torch.uint8))
    mixtral.hf_quantizer = types.SimpleNamespace(quantization_config=types.SimpleNamespace(quant_method="mxfp4"))
    with pytest.raises(UneditableWeightError, match=r"mlp\.experts\.down_proj is quantised \(mxfp4\)"):
        Anatomy.of(mixtral, family=FAMILIES["mixtral"]).read_weight(mixtral, WeightSite(0, T.DOWN, expert=0))


def test_reading_alone_finds_the_experts(mixture: tuple[nn.Module, Family]) -> None:
    model, family = mixture
    read = Anatomy.of(model).family
    assert {t: read.matrices[t] for t in ATTENTION} == ATTENTION
    experts = {t: (own[-1] if isinstance(own := read.matrices[t], tuple) else own) for t in (T.GATE, T.UP, T.DOWN)}
    assert experts == {t: family.matrices[t] for t in experts}


def test_reading_alone_tells_a_dense_first_layer_from_its_experts(described: Described) -> None:
    model = described("qwen3_moe", **MODELS["qwen3_moe"])
    anatomy = Anatomy.of(model)
    assert anatomy.sites(layers=[0], matrix_types=[T.UP]) == (WeightSite(0, T.UP),)
    assert anatomy.module_path(WeightSite(0, T.UP)) == "model.layers.0.mlp.up_proj"
    assert anatomy.sites(layers=[1], matrix_types=[T.UP]) == tuple(WeightSite(1, T.UP, expert=e) for e in range(3))


FILE = """
name: GPT-OSS
model_types: [gpt_oss]
blocks: model.layers
matrices:
  query: self_attn.q_proj
  key: self_attn.k_proj
  value: self_attn.v_proj
  output: self_attn.o_proj
  gate: &gate_up
    {path: mlp.experts, parameter: gate_up_proj, experts: stacked, packing: interleaved, packed: [gate, up], transposed: true}
  up: *gate_up
  down: {path: mlp.experts, parameter: down_proj, experts: stacked, transposed: true}
"""


def test_a_family_file_describes_stacked_experts(tmp_path: Path) -> None:
    path = tmp_path / "family.yaml"
    path.write_text(FILE, encoding="utf-8")
    assert read_family(path) == FAMILIES["gpt_oss"]


@pytest.mark.parametrize(
    ("entry", "complaint"),
    [
        ("{path: 'experts.{expert}.up', experts: stacked}", "experts are either stacked or have modules of their own"),
        ("{path: up, packing: interleaved, packed: [query, up]}", "query, up cannot be interleaved"),
        (
            "{path: up, packing: stacked, packed: [gate, down]}",
            "up is not among the parts it is packed with, gate, down",
        ),
        ("{path: up, experts: listed}", "stacked"),
    ],
)
def test_a_description_that_contradicts_itself_is_refused(entry: str, complaint: str, tmp_path: Path) -> None:
    path = tmp_path / "family.yaml"
    path.write_text(f"name: own\nblocks: h\nmatrices:\n  up: {entry}\n", encoding="utf-8")
    with pytest.raises(UsageError, match=complaint):
        read_family(path)


def test_a_table_shows_an_edit_at_its_expert_alone_and_words_name_it(mixtral: nn.Module) -> None:
    family, site = FAMILIES["mixtral"], WeightSite(1, T.DOWN, expert=2)
    recipe = Recipe.of(mixtral, [RankReduction(site, rank_fraction=0.1)], family=family)
    assert "layer 1 down expert 2: rank reduction to rank 3" in str(recipe)
    anatomy = Anatomy.of(mixtral, family=family)
    rows = describe_matrices(mixtral, anatomy, matrix_types=[T.DOWN], spectra=False, edits=recipe.describe())
    assert [(row.layer, row.expert) for row in rows if row.edits] == [(1, 2)]
    assert len(rows) == 6
