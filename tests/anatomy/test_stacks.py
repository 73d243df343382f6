"""Models with several lists of blocks: an encoder and a decoder, a text model and one for images."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForImageTextToText, AutoModelForSeq2SeqLM

from strop.anatomy import Anatomy, Family, MatrixType, Spelling, Stack, Stream, StreamSite, WeightSite, read_family
from strop.errors import AnatomyError, SiteError, UsageError
from strop.export import bake
from strop.interventions import LowRankEdit, Positions, RankReduction
from strop.recipe import Recipe, applied

T = MatrixType
SELF_ATTENTION = {
    T.QUERY: Spelling("layer.0.SelfAttention.q"),
    T.KEY: Spelling("layer.0.SelfAttention.k"),
    T.VALUE: Spelling("layer.0.SelfAttention.v"),
    T.OUTPUT: Spelling("layer.0.SelfAttention.o"),
}


def mlp(layer: int) -> dict[MatrixType, Spelling]:
    return {
        T.UP: Spelling(f"layer.{layer}.DenseReluDense.wi"),
        T.DOWN: Spelling(f"layer.{layer}.DenseReluDense.wo"),
    }


T5 = Family(
    name="T5",
    model_types=("t5",),
    blocks="decoder.block",
    matrices={**SELF_ATTENTION, **mlp(2)},
    block_returns="tuple",
    stacks={Stack.ENCODER: "encoder.block", Stack.DECODER: "decoder.block"},
    stack_matrices={Stack.ENCODER: {**SELF_ATTENTION, **mlp(1)}},
    resumes=False,
)
LLAMA_LIKE = {
    T.QUERY: Spelling("self_attn.q_proj"),
    T.OUTPUT: Spelling("self_attn.o_proj"),
    T.UP: Spelling("mlp.up_proj"),
    T.DOWN: Spelling("mlp.down_proj"),
}
GEMMA3 = Family(
    name="Gemma 3",
    model_types=("gemma3",),
    blocks="model.language_model.layers",
    matrices=LLAMA_LIKE,
    stacks={Stack.VISION: "model.vision_tower.encoder.layers"},
    stack_matrices={Stack.VISION: {T.QUERY: Spelling("self_attn.q_proj"), T.UP: Spelling("mlp.fc1")}},
)
Tiny = Callable[..., nn.Module]


def drawn(model: nn.Module) -> nn.Module:
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.normal_(0, 0.15)
    return model.eval()


@pytest.fixture
def t5() -> nn.Module:
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        "t5", vocab_size=320, d_model=32, d_kv=16, d_ff=48, num_layers=2, num_decoder_layers=3, num_heads=4,
    )  # fmt: skip
    return drawn(AutoModelForSeq2SeqLM.from_config(config))


@pytest.fixture
def gemma3() -> nn.Module:
    torch.manual_seed(0)
    text = {
        "vocab_size": 320, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "head_dim": 16, "intermediate_size": 48, "max_position_embeddings": 128, "pad_token_id": 0,
    }  # fmt: skip
    vision = {
        "hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 3, "intermediate_size": 40, "image_size": 28,
        "patch_size": 14,
    }  # fmt: skip
    config = AutoConfig.for_model("gemma3", text_config=text, vision_config=vision, mm_tokens_per_image=4)
    return drawn(AutoModelForImageTextToText.from_config(config))


def logits(model: nn.Module) -> Tensor:
    ids = torch.arange(1, 9)[None]
    with torch.no_grad():
        return model(input_ids=ids, decoder_input_ids=ids, use_cache=False).logits


def test_each_stack_has_its_own_layers_and_spelling(t5: nn.Module) -> None:
    anatomy = Anatomy.of(t5, family=T5)
    assert (anatomy.layer_count, anatomy.hidden_size, anatomy.head_count, anatomy.head_size) == (3, 32, 4, 16)
    assert anatomy.stacks[Stack.ENCODER].layer_count == 2
    assert anatomy.blocks(t5) is t5.decoder.block
    assert anatomy.blocks(t5, Stack.ENCODER) is t5.encoder.block
    assert len(anatomy.sites()) == 3 * 6
    assert {site.stack for site in anatomy.sites()} == {Stack.DECODER}
    assert len(anatomy.sites(stack=Stack.ENCODER)) == 2 * 6
    for stack, layer, own in (
        (Stack.ENCODER, 1, t5.encoder.block[1].layer[1]),
        (Stack.DECODER, 1, t5.decoder.block[1].layer[2]),
    ):
        site = WeightSite(layer, T.UP, stack=stack)
        assert torch.equal(anatomy.read_weight(t5, site), own.DenseReluDense.wi.weight)
        head = WeightSite(layer, T.QUERY, head=3, stack=stack)
        whole = anatomy.blocks(t5, stack)[layer].layer[0].SelfAttention.q.weight
        assert torch.equal(anatomy.read_weight(t5, head), whole[48:])


def test_every_site_of_both_stacks_is_written_without_touching_another(t5: nn.Module) -> None:
    anatomy = Anatomy.of(t5, family=T5)
    sites = [*anatomy.sites(stack=Stack.ENCODER), *anatomy.sites(stack=Stack.DECODER)]
    counts = {id(p): torch.zeros_like(p) for p in t5.parameters()}
    for site in sites:
        tally = counts[id(anatomy.parameter(t5, site))]
        anatomy.write_matrix(tally, site, anatomy.matrix_in(tally, site) + 1)
    touched = [tally for tally in counts.values() if tally.any()]
    assert len(touched) == len(set(sites)) == 30
    assert all(torch.equal(tally, torch.ones_like(tally)) for tally in touched)


def test_an_encoder_and_a_decoder_are_edited_saved_baked_and_restored(t5: nn.Module, tmp_path: Path) -> None:
    edits = [
        RankReduction(WeightSite(1, T.UP, stack=Stack.ENCODER), rank_fraction=0.1),
        RankReduction(WeightSite(1, T.UP, stack=Stack.DECODER), rank_fraction=0.5),
    ]
    before, plain = {name: p.detach().clone() for name, p in t5.named_parameters()}, logits(t5)
    recipe = Recipe.of(t5, edits, family=T5)
    recipe.save(tmp_path / "recipe")
    assert Recipe.load(tmp_path / "recipe") == recipe
    for edit in edits:
        with applied(t5, Recipe.of(t5, [edit], family=T5), family=T5):
            assert not torch.allclose(logits(t5), plain, atol=1e-4)
            changed = {name for name, p in t5.named_parameters() if not torch.equal(p, before[name])}
        assert changed == {f"{Anatomy.of(t5, family=T5).module_path(edit.site)}.weight"}
    with applied(t5, recipe, family=T5):
        expected = logits(t5)
    assert all(torch.equal(p, before[name]) for name, p in t5.named_parameters())
    bake(t5, recipe, tmp_path / "baked", family=T5)
    loaded = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "baked").eval()
    torch.testing.assert_close(logits(loaded), expected, atol=1e-5, rtol=1e-5)


def test_hidden_states_are_those_of_their_stack(t5: nn.Module, tmp_path: Path) -> None:
    anatomy = Anatomy.of(t5, family=T5)
    assert anatomy.stream_module(t5, StreamSite(1, stack=Stack.ENCODER)) is t5.encoder.block[1]
    output = t5.decoder.block[2].layer[0].SelfAttention.o
    assert anatomy.stream_module(t5, StreamSite(2, Stream.ATTENTION, stack=Stack.DECODER)) is output
    edit = LowRankEdit(StreamSite(1, stack=Stack.ENCODER), "loreft", rank=2, positions=Positions.parse("all"))
    recipe = Recipe.of(t5, [edit], family=T5, tensors=[edit.initial_tensors((32, 32))])
    recipe.save(tmp_path / "recipe")
    assert Recipe.load(tmp_path / "recipe").interventions == (edit,)


@pytest.mark.parametrize(
    ("site", "complaint"),
    [
        (WeightSite(0, T.UP), "layer 0 up: a T5 model has these stacks: decoder, encoder; choose one of them"),
        (StreamSite(0), "layer 0 block: a T5 model has these stacks: decoder, encoder"),
        (WeightSite(0, T.UP, stack=Stack.VISION), "vision layer 0 up: a T5 model has these stacks"),
        (WeightSite(2, T.UP, stack=Stack.ENCODER), "encoder layer 2 up: the encoder has layers 0 to 1"),
    ],
)
def test_a_stack_that_is_missing_or_too_short_is_refused_with_those_there_are(
    site: WeightSite | StreamSite, complaint: str, t5: nn.Module
) -> None:
    anatomy = Anatomy.of(t5, family=T5)
    look = anatomy.module if isinstance(site, WeightSite) else anatomy.stream_module
    with pytest.raises(SiteError, match=complaint):
        look(t5, site)


def test_a_stack_is_refused_where_there_is_only_one(tiny: Tiny) -> None:
    model = tiny("llama")
    anatomy = Anatomy.of(model)
    with pytest.raises(SiteError, match="decoder layer 0 up: a Llama model has one stack, which has no name"):
        anatomy.read_weight(model, WeightSite(0, T.UP, stack=Stack.DECODER))
    for look in (lambda: anatomy.sites(stack=Stack.ENCODER), lambda: anatomy.blocks(model, Stack.ENCODER)):
        with pytest.raises(SiteError, match="encoder: a Llama model has one stack"):
            look()


def test_a_text_model_inside_a_larger_one_has_the_sizes_of_its_own_config(gemma3: nn.Module) -> None:
    anatomy = Anatomy.of(gemma3, family=GEMMA3)
    assert (anatomy.layer_count, anatomy.hidden_size, anatomy.key_value_head_count, anatomy.head_size) == (2, 32, 2, 16)
    assert anatomy.context(gemma3) == 128
    assert {site.stack for site in anatomy.sites()} == {None}
    site = WeightSite(1, T.OUTPUT, head=1)
    weight = gemma3.model.language_model.layers[1].self_attn.o_proj.weight
    assert torch.equal(anatomy.read_weight(gemma3, site), weight[:, 16:32])


def test_an_image_model_beside_it_is_a_stack_of_other_sizes(gemma3: nn.Module) -> None:
    anatomy = Anatomy.of(gemma3, family=GEMMA3)
    sizes = anatomy.stacks[Stack.VISION]
    assert (sizes.layer_count, sizes.hidden_size, sizes.head_count, sizes.head_size) == (3, 24, 3, 8)
    site = WeightSite(2, T.QUERY, head=2, stack=Stack.VISION)
    weight = gemma3.model.vision_tower.encoder.layers[2].self_attn.q_proj.weight
    assert torch.equal(anatomy.read_weight(gemma3, site), weight[16:])
    with pytest.raises(SiteError, match="these stacks: one without a name, vision; choose"):
        anatomy.sites(stack=Stack.ENCODER)


def test_a_vision_stack_needs_a_config_that_speaks_of_one(tiny: Tiny) -> None:
    family = Family("own", (), "model.layers", LLAMA_LIKE, stacks={Stack.VISION: "model.layers.0.mlp"})
    model = tiny("llama")
    with pytest.raises(AnatomyError, match="LlamaConfig has no vision_config"):
        Anatomy.of(model, family=family)


FILE = """
name: T5
model_types: [t5]
blocks: decoder.block
block_returns: tuple
stacks: {encoder: encoder.block, decoder: decoder.block}
matrices: &decoder
  query: layer.0.SelfAttention.q
  key: layer.0.SelfAttention.k
  value: layer.0.SelfAttention.v
  output: layer.0.SelfAttention.o
  up: layer.2.DenseReluDense.wi
  down: layer.2.DenseReluDense.wo
stack_matrices:
  encoder: {<<: *decoder, up: layer.1.DenseReluDense.wi, down: layer.1.DenseReluDense.wo}
resumes: false
"""


def test_a_family_file_describes_stacks(tmp_path: Path) -> None:
    path = tmp_path / "t5.yaml"
    path.write_text(FILE, encoding="utf-8")
    assert read_family(path) == T5


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ("stacks: {encoder: h, decoder: h}", "each stack has a path of its own"),
        ("stacks: {null: g}", "the stack without a name is the main one, whose path is h"),
        (
            "stack_matrices: {encoder: {up: fc1}}",
            "the matrices of a stack 'encoder' are spelled, and stacks has no such",
        ),
        ("stacks: {side: g}", "side"),
    ],
)
def test_stacks_that_contradict_each_other_are_refused(change: str, complaint: str, tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(f"name: own\nblocks: h\nmatrices: {{up: fc1}}\n{change}\n", encoding="utf-8")
    with pytest.raises(UsageError, match=complaint):
        read_family(path)
