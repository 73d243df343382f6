"""Every family's matrices, read and written as (out, in)."""

import types
from collections.abc import Callable

import pytest
import torch
from tests.fixtures.stored import hold_in_bytes
from torch import Tensor, nn

from strop.anatomy import Anatomy, MatrixType, WeightSite
from strop.errors import SiteError, UneditableWeightError

LLAMA_LIKE = [
    "llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "smollm3", "granite", "olmo", "olmo2",
    "stablelm",
]  # fmt: skip
MODEL_TYPES = [*LLAMA_LIKE, "phi3", "gpt2", "gptj", "gpt_neox", "bert", "roberta"]
PACKED = ["phi3", "gpt2", "gpt_neox"]
T = MatrixType
Tiny = Callable[..., nn.Module]


def heads(anatomy: Anatomy, matrix_type: MatrixType) -> int:
    return anatomy.key_value_head_count if matrix_type in (T.KEY, T.VALUE) else anatomy.head_count


def all_parameters(model: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_every_layer_has_every_matrix_type_of_its_family(model_type: str, tiny: Tiny) -> None:
    model = tiny(model_type)
    anatomy = Anatomy.of(model)
    per_layer = 6 if model_type in ("gpt2", "gptj", "gpt_neox", "bert", "roberta") else 7
    sites = anatomy.sites()
    assert anatomy.layer_count == 3
    assert len(sites) == len(set(sites)) == 3 * per_layer
    assert [site.layer for site in sites] == sorted(site.layer for site in sites)


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_every_weight_has_the_shape_its_place_demands(model_type: str, tiny: Tiny) -> None:
    model = tiny(model_type)
    anatomy = Anatomy.of(model)
    width = anatomy.hidden_size
    inner = 128 if model_type in ("gpt2", "gptj") else 48
    query, grouped = anatomy.head_count * anatomy.head_size, anatomy.key_value_head_count * anatomy.head_size
    expected = {
        T.QUERY: (query, width),
        T.KEY: (grouped, width),
        T.VALUE: (grouped, width),
        T.OUTPUT: (width, query),
        T.GATE: (inner, width),
        T.UP: (inner, width),
        T.DOWN: (width, inner),
    }
    for site in anatomy.sites():
        weight = anatomy.read_weight(model, site)
        assert tuple(weight.shape) == expected[site.matrix_type], site
        assert not weight.requires_grad


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_the_matrices_of_all_sites_are_the_modules_parameters_and_no_entry_belongs_to_two(
    model_type: str, tiny: Tiny
) -> None:
    model = tiny(model_type)
    anatomy = Anatomy.of(model)
    counts = {id(p): torch.zeros_like(p) for p in model.parameters()}
    for site in anatomy.sites():
        tally = counts[id(anatomy.parameter(model, site))]
        anatomy.write_matrix(tally, site, anatomy.matrix_in(tally, site) + 1)
    touched = [tally for tally in counts.values() if tally.any()]
    assert all(torch.equal(tally, torch.ones_like(tally)) for tally in touched)
    distinct = {anatomy.module_path(site) for site in anatomy.sites()}
    assert len(touched) == len(distinct)


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_the_weight_read_is_what_its_module_computes(model_type: str, tiny: Tiny) -> None:
    model = tiny(model_type)
    anatomy = Anatomy.of(model)
    generator = torch.Generator().manual_seed(1)
    for site in anatomy.sites(layers=[1]):
        weight, module = anatomy.read_weight(model, site), anatomy.module(model, site)
        inputs = torch.randn(2, 5, weight.shape[1], generator=generator)
        with torch.no_grad():
            outputs = anatomy.outputs_in(module(inputs), site)
            bias = getattr(module, "bias", None)
            mine = inputs @ weight.T
            if bias is not None:
                bias.normal_(generator=generator)
                outputs = anatomy.outputs_in(module(inputs), site)
                mine = mine + anatomy.outputs_in(bias.detach(), site)
        torch.testing.assert_close(outputs, mine, atol=1e-5, rtol=1e-5)


def attention_inputs(model: nn.Module, module_name: str) -> tuple[dict[str, Tensor], Tensor]:
    """What reaches the attention function of layer 1, and the input of its fused projection."""
    seen: dict[str, Tensor] = {}
    block = dict(model.named_modules())[module_name]

    def note(module: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> None:
        seen["input"], seen["output"] = arguments[0].detach(), output.detach()

    handle = block.register_forward_hook(note)
    with torch.no_grad():
        model(input_ids=torch.arange(1, 7)[None])
    handle.remove()
    return seen, seen["input"]


def test_gpt2_splits_its_conv1d_into_query_key_and_value(tiny: Tiny) -> None:
    model = tiny("gpt2")
    anatomy = Anatomy.of(model)
    seen, inputs = attention_inputs(model, "transformer.h.1.attn.c_attn")
    query, key, value = seen["output"].split(32, dim=2)  # as GPT2Attention.forward does
    bias = model.transformer.h[1].attn.c_attn.bias.detach()
    for index, (part, matrix_type) in enumerate(((query, T.QUERY), (key, T.KEY), (value, T.VALUE))):
        weight = anatomy.read_weight(model, WeightSite(1, matrix_type))
        torch.testing.assert_close(part, inputs @ weight.T + bias[32 * index : 32 * (index + 1)], atol=1e-5, rtol=1e-5)


def test_gpt_neox_interleaves_query_key_and_value_head_by_head(tiny: Tiny) -> None:
    model = tiny("gpt_neox")
    anatomy = Anatomy.of(model)
    seen, inputs = attention_inputs(model, "gpt_neox.layers.1.attention.query_key_value")
    per_head = seen["output"].view(1, 6, 4, 3 * 8).transpose(1, 2)  # as GPTNeoXAttention.forward does
    bias = model.gpt_neox.layers[1].attention.query_key_value.bias.detach().view(4, 3, 8)
    for index, matrix_type in enumerate((T.QUERY, T.KEY, T.VALUE)):
        part = per_head.chunk(3, dim=-1)[index]  # (batch, heads, tokens, head size)
        for head in range(4):
            weight = anatomy.read_weight(model, WeightSite(1, matrix_type, head=head))
            torch.testing.assert_close(part[:, head], inputs @ weight.T + bias[head, index], atol=1e-5, rtol=1e-5)


def test_phi3_stacks_grouped_query_key_and_value_and_gate_over_up(tiny: Tiny) -> None:
    model = tiny("phi3")
    anatomy = Anatomy.of(model)
    seen, inputs = attention_inputs(model, "model.layers.1.self_attn.qkv_proj")
    parts = {T.QUERY: slice(0, 32), T.KEY: slice(32, 48), T.VALUE: slice(48, 64)}  # as Phi3Attention.forward does
    for matrix_type, rows in parts.items():
        weight = anatomy.read_weight(model, WeightSite(1, matrix_type))
        torch.testing.assert_close(seen["output"][..., rows], inputs @ weight.T, atol=1e-5, rtol=1e-5)
    seen, inputs = attention_inputs(model, "model.layers.1.mlp.gate_up_proj")
    gate, up = seen["output"].chunk(2, dim=-1)  # as Phi3MLP.forward does
    for part, matrix_type in ((gate, T.GATE), (up, T.UP)):
        weight = anatomy.read_weight(model, WeightSite(1, matrix_type))
        torch.testing.assert_close(part, inputs @ weight.T, atol=1e-5, rtol=1e-5)


def sites_with_heads(anatomy: Anatomy) -> list[WeightSite]:
    attention = [t for t in (T.QUERY, T.KEY, T.VALUE, T.OUTPUT) if t in anatomy.matrix_types]
    return [
        *anatomy.sites(layers=[1]),
        *(
            WeightSite(1, matrix_type, head=head)
            for matrix_type in attention
            for head in range(heads(anatomy, matrix_type))
        ),
    ]


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_what_is_written_is_what_is_read_and_nothing_else_changes(model_type: str, tiny: Tiny) -> None:
    model = tiny(model_type)
    anatomy = Anatomy.of(model)
    for site in sites_with_heads(anatomy):
        parameter = anatomy.parameter(model, site).detach()
        before = parameter.clone()
        ours = torch.zeros_like(parameter, dtype=torch.bool)  # found through reading alone
        places = torch.arange(parameter.numel(), dtype=torch.float64).view_as(parameter)
        ours.view(-1)[anatomy.matrix_in(places, site).reshape(-1).long()] = True
        new = torch.randn(anatomy.read_weight(model, site).shape)

        anatomy.write_matrix(parameter, site, new)
        assert torch.equal(anatomy.read_weight(model, site), new), site
        assert torch.equal(parameter[~ours], before[~ours]), site
        assert int(ours.sum()) == new.numel()

        anatomy.write_matrix(parameter, site, before.view(-1)[anatomy.matrix_in(places, site).long()])
        assert torch.equal(parameter, before), site


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_writing_back_what_was_read_changes_no_bit(model_type: str, tiny: Tiny) -> None:
    model = tiny(model_type)
    anatomy = Anatomy.of(model)
    before = all_parameters(model)
    for site in sites_with_heads(anatomy):
        anatomy.write_matrix(anatomy.parameter(model, site).data, site, anatomy.read_weight(model, site).clone())
    assert all(torch.equal(parameter, before[name]) for name, parameter in model.named_parameters())


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_the_heads_together_are_the_whole_matrix(model_type: str, tiny: Tiny) -> None:
    model = tiny(model_type)
    anatomy = Anatomy.of(model)
    for matrix_type in (T.QUERY, T.KEY, T.VALUE, T.OUTPUT):
        whole = anatomy.read_weight(model, WeightSite(2, matrix_type))
        shares = [
            anatomy.read_weight(model, WeightSite(2, matrix_type, head=head))
            for head in range(heads(anatomy, matrix_type))
        ]
        stacked = torch.cat(shares, dim=1 if matrix_type is T.OUTPUT else 0)
        assert torch.equal(stacked, whole)


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_a_sites_share_of_inputs_and_outputs_is_what_its_matrix_reads_and_makes(model_type: str, tiny: Tiny) -> None:
    """The product of output gradients and inputs is the gradient of the weight, for each head as for the whole."""
    model = tiny(model_type)
    anatomy = Anatomy.of(model)
    for site in sites_with_heads(anatomy):
        module, parameter = anatomy.module(model, site), anatomy.parameter(model, site)
        features_in = parameter.shape[0] if anatomy.spelling(site).transposed else parameter.shape[1]
        inputs = torch.randn(2, 3, features_in)
        outputs = module(inputs)
        gradients = torch.randn_like(outputs)
        (gradient,) = torch.autograd.grad(outputs, parameter, gradients)
        mine = torch.einsum("bto,bti->oi", anatomy.outputs_in(gradients, site), anatomy.inputs_in(inputs, site))
        torch.testing.assert_close(mine, anatomy.matrix_in(gradient, site), atol=1e-4, rtol=1e-4)


# Addresses that are not there


def test_a_layer_out_of_range_is_refused_with_the_layers_there_are(tiny: Tiny) -> None:
    anatomy = Anatomy.of(tiny("llama"))
    with pytest.raises(SiteError, match="layer 3 up: this model has layers 0 to 2"):
        anatomy.sites(layers=[3], matrix_types=[T.UP])
    with pytest.raises(SiteError, match="counted from 0; -1 is not one"):
        WeightSite(-1, T.UP)


@pytest.mark.parametrize("model_type", ["gpt2", "gpt_neox"])
def test_a_gate_is_refused_where_there_is_none(model_type: str, tiny: Tiny) -> None:
    model = tiny(model_type)
    with pytest.raises(SiteError, match="block has no gate matrix; it has query, key, value, output, up, down"):
        Anatomy.of(model).read_weight(model, WeightSite(0, T.GATE))


def test_a_head_out_of_range_is_refused_with_the_heads_there_are(tiny: Tiny) -> None:
    model = tiny("llama")
    anatomy = Anatomy.of(model)
    with pytest.raises(SiteError, match="layer 0 key head 2: the key matrix has heads 0 to 1"):
        anatomy.read_weight(model, WeightSite(0, T.KEY, head=2))
    with pytest.raises(SiteError, match="the query matrix has heads 0 to 3"):
        anatomy.read_weight(model, WeightSite(0, T.QUERY, head=4))


def test_a_head_of_an_mlp_matrix_is_refused() -> None:
    with pytest.raises(SiteError, match="A down matrix has no heads; leave the head out"):
        WeightSite(0, T.DOWN, head=0)


def test_an_expert_is_refused_where_there_is_none(tiny: Tiny) -> None:
    model = tiny("llama")
    with pytest.raises(SiteError, match="layer 0 up expert 1: a Llama block has no experts"):
        Anatomy.of(model).read_weight(model, WeightSite(0, T.UP, expert=1))


# Weights that must be left alone


def test_a_tied_weight_is_refused_with_both_names_and_may_still_be_read(tiny: Tiny) -> None:
    model = tiny("llama")
    model.model.layers[2].mlp.up_proj.weight = model.model.layers[0].mlp.up_proj.weight
    anatomy = Anatomy.of(model)
    for layer in (0, 2):
        with pytest.raises(
            UneditableWeightError,
            match=r"model\.layers\.0\.mlp\.up_proj\.weight is tied to model\.layers\.2\.mlp\.up_proj\.weight.*untie them",
        ):
            anatomy.refuse_tied(model, [WeightSite(layer, T.UP)])
    anatomy.refuse_tied(model, [WeightSite(1, T.UP)])
    assert anatomy.read_weight(model, WeightSite(2, T.UP)).shape == (48, 32)


def test_a_quantised_model_is_refused_with_its_method(tiny: Tiny) -> None:
    model = tiny("llama")
    hold_in_bytes(model.model.layers[1].mlp.up_proj)
    model.is_quantized = True
    model.hf_quantizer = types.SimpleNamespace(
        quantization_config=types.SimpleNamespace(quant_method=types.SimpleNamespace(value="bitsandbytes"))
    )
    with pytest.raises(
        UneditableWeightError,
        match=r"layers\.1\.mlp\.up_proj\.weight is quantised \(bitsandbytes\).*load the model deq",
    ):
        Anatomy.of(model).read_weight(model, WeightSite(1, T.UP))


def test_an_integer_weight_is_refused_by_name(tiny: Tiny) -> None:
    model = tiny("llama")
    model.model.layers[1].mlp.up_proj.weight = nn.Parameter(torch.zeros(48, 32, dtype=torch.int8), requires_grad=False)
    with pytest.raises(
        UneditableWeightError, match=r"up_proj\.weight is quantised \(int8\), and an edit of weights needs"
    ):
        Anatomy.of(model).read_weight(model, WeightSite(1, T.UP))


def test_a_weight_without_numbers_is_refused_by_name(tiny: Tiny) -> None:
    model = tiny("llama")
    model.model.layers[1].mlp.up_proj.to("meta")
    with pytest.raises(
        UneditableWeightError, match=r"up_proj\.weight is without numbers, for it is on the meta device"
    ):
        Anatomy.of(model).read_weight(model, WeightSite(1, T.UP))
