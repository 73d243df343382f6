"""An anatomy that holds passes, and each way in which one may not hold is named."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from tests.anatomy.reading.models import FAMILIES, QKV, T, decision, hooks_of, make
from torch import nn

from strop.anatomy import Anatomy, Family, MatrixType, Spelling
from strop.anatomy.reading.observe import Observed
from strop.anatomy.reading.verify import Findings, verify
from strop.anatomy.sizes import sizes_of
from strop.errors import AnatomyError

Tiny = Callable[..., nn.Module]
GATED = [
    "llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "smollm3", "granite", "olmo", "olmo2", "stablelm",
    "phi3",
]  # fmt: skip


def verified(model: Any, family: Family | None = None) -> Findings:
    family = family or family_of(model)
    return verify(model, family, {stack: sizes_of(model, family, stack) for stack in family.paths})


def spelled_otherwise(known: Family, **spellings: Spelling) -> Family:
    return dataclasses.replace(
        known, matrices={**known.matrices, **{T(name): each for name, each in spellings.items()}}
    )


def family_of(model: Any) -> Family:
    return Anatomy.of(model).family


@pytest.mark.parametrize("model_type", [*GATED, "gpt2", "gptj", "gpt_neox", "bert", "roberta"])
def test_what_is_listed_holds(model_type: str, tiny: Tiny) -> None:
    model = tiny(model_type)
    findings = verified(model)
    assert findings.seen == Observed("tuple" if model_type == "gptj" else "tensor", "bert" not in model_type, 1)
    assert findings.reuses_prefix
    assert findings.told == {*QKV, *((T.GATE, T.UP) if model_type in GATED else ())}


@pytest.mark.parametrize("name", [*FAMILIES])
def test_what_is_described_holds(name: str) -> None:
    model = make(name)
    findings = verified(model, FAMILIES[name])
    assert findings.told == {*QKV}
    assert findings.reuses_prefix is (name != "albert")
    assert findings.seen.calls_per_block == (2 if name == "albert" else 1)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_it_holds_in_other_precisions(dtype: torch.dtype, tiny: Tiny) -> None:
    for model_type in ("llama", "phi3"):
        model = tiny(model_type).to(dtype)
        findings = verified(model)
        assert findings.reuses_prefix
        assert findings.told == {*QKV, T.GATE, T.UP}


def whole(path: str) -> Spelling:
    return Spelling(f"self_attn.{path}_proj")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"key": whole("v"), "value": whole("k")},
            "layer 0 key head 0: row 4 of model.layers.0.self_attn.v_proj, said to be its, serves as value of heads 0 to 1; "
            "correct the spelling's path, packing or packed.",
        ),
        (
            {"gate": Spelling("mlp.up_proj"), "up": Spelling("mlp.gate_proj")},
            "layer 0 gate: row 0 of model.layers.0.mlp.up_proj, said to be its, serves as up of feature 0; correct the "
            "spelling's path, packing or packed.",
        ),
        (
            {"key": whole("v")},
            "layer 0 value: its entries of model.layers.0.self_attn.v_proj.weight are said to be another matrix's too; spell "
            "each matrix as what it is.",
        ),
        (
            {"down": Spelling("mlp.down_proj", transposed=True)},
            "layer 0 down: model.layers.0.mlp.down_proj makes 32 features of 48, and the matrix that is read 48 of 32; correct "
            "the spelling's transposed.",
        ),
    ],
)
def test_a_llama_spelled_otherwise_is_refused(changes: dict[str, Spelling], said: str, tiny: Tiny) -> None:
    model = tiny("llama")
    family = spelled_otherwise(family_of(model), **changes)
    with pytest.raises(AnatomyError) as caught:
        verified(model, family)
    assert str(caught.value) == said


def test_queries_that_are_said_to_be_keys_are_found_where_shapes_do_not_tell(tiny: Tiny) -> None:
    model = tiny("llama", num_key_value_heads=4)
    family = spelled_otherwise(family_of(model), query=whole("k"), key=whole("q"))
    with pytest.raises(
        AnatomyError, match="layer 0 query head 0: row 4 of .*k_proj, said to be its, serves as key of head 0"
    ):
        verified(model, family)


@pytest.mark.parametrize(
    ("name", "packing", "packed", "said"),
    [
        ("gpt2", "interleaved", QKV, "query head 3: row 76 of .*h.0.attn.c_attn, said to be its, serves as value of head 1"),
        ("gpt2", "stacked", QKV[::-1], "query head 0: row 68 of .*, serves as value of head 0"),
        ("gpt_bigcode-heads", "stacked", QKV, "query head 3: row 28 of .*, serves as query of head 1"),
        ("mpt", "interleaved", QKV, "query head 3: row 76 of transformer.blocks.0.attn.Wqkv, .* serves as value of head 1"),
        ("falcon-40b", "interleaved", (T.KEY, T.QUERY, T.VALUE), "query head 0: row 12 of .* serves as query of head 1"),
    ],
)  # fmt: skip
def test_a_fused_matrix_that_is_packed_otherwise_is_refused(
    name: str, packing: Any, packed: tuple[MatrixType, ...], said: str
) -> None:
    known = FAMILIES[name.removesuffix("-heads")]
    wrong = {str(part): dataclasses.replace(known.matrices[part], packing=packing, packed=packed) for part in QKV}
    model = make(name)
    with pytest.raises(AnatomyError, match=f"layer 0 {said}"):
        verified(model, spelled_otherwise(known, **wrong))


def test_values_of_their_own_module_may_serve_other_heads_than_their_keys() -> None:
    model = make("llama", num_key_value_heads=4)
    for block in model.model.layers:
        block.self_attn.o_proj.register_forward_pre_hook(
            lambda _module, arguments: (arguments[0].roll(8, -1),), prepend=True
        )
    assert verified(model).told == {*QKV, T.GATE, T.UP}


def test_halves_of_an_mlp_that_lie_otherwise_are_refused(tiny: Tiny) -> None:
    model = tiny("phi3")
    for packing, packed, said in (
        ("stacked", (T.UP, T.GATE), "layer 0 gate: row 48 of .*gate_up_proj, said to be its, serves as up of feature 0"),
        ("interleaved", (T.GATE, T.UP), "layer 0 gate: row 94 of .* serves as up of feature 46"),
    ):  # fmt: skip
        halves = Spelling("mlp.gate_up_proj", packing, packed)
        family = spelled_otherwise(family_of(model), gate=halves, up=halves)
        with pytest.raises(AnatomyError, match=said):
            verified(model, family)


def test_a_square_matrix_that_is_transposed_is_refused() -> None:
    model = make("gpt2")
    known = spelled_otherwise(FAMILIES["gpt2"], output=Spelling("attn.c_proj"))
    with pytest.raises(
        AnatomyError,
        match=r"layer 0 output: what transformer.h.0.attn.c_proj gives is not its input times the matrix that is read, plus its "
        r"bias; it is off by 1\d\d\.\d% of its size: correct the spelling's path or transposed\.",
    ):
        verified(model, known)


def test_a_bias_that_is_not_the_modules_own_is_refused(tiny: Tiny) -> None:
    model = tiny("llama")
    model.model.layers[0].mlp.up_proj.register_forward_hook(lambda _module, _arguments, output: output + 0.1)
    with pytest.raises(
        AnatomyError, match=r"layer 0 up: what model.layers.0.mlp.up_proj gives is not .*; it is off by \d"
    ):
        verified(model)


def test_what_a_family_says_of_its_blocks_is_checked(tiny: Tiny) -> None:
    model, encoder = tiny("llama"), tiny("bert")
    tuples = dataclasses.replace(family_of(model), block_returns="tuple")
    with pytest.raises(AnatomyError) as caught:
        verified(model, tuples)
    assert str(caught.value) == (
        "A Llama block is said to return a tuple, and this one returns a tensor: describe the family with "
        'block_returns="tensor".'
    )
    causal = dataclasses.replace(family_of(encoder), causal=True)
    with pytest.raises(AnatomyError) as caught:
        verified(encoder, causal)
    assert str(caught.value) == (
        "The tokens of a Bert model are said to see those before them alone, and these see later ones too: describe the family "
        "with causal=False."
    )
    twice = dataclasses.replace(family_of(model), calls_per_block=2)
    with pytest.raises(
        AnatomyError, match=r"said to run 2 times in a pass, and one runs 1 times: .* calls_per_block=1\."
    ):
        verified(model, twice)


def test_states_that_depend_on_the_padding_are_refused(tiny: Tiny) -> None:
    model = tiny("llama")
    model.model.embed_tokens.register_forward_hook(lambda _module, _arguments, output: output + output.shape[1])
    with pytest.raises(
        AnatomyError, match="Padding on the right changes what LlamaForCausalLM makes of the tokens before it"
    ):
        verified(model)


def test_a_block_that_looks_past_its_input_keeps_prefixes_from_being_reused(tiny: Tiny) -> None:
    model = tiny("llama")
    kept: list[torch.Tensor] = []
    model.model.layers[0].register_forward_hook(lambda _module, _arguments, output: kept.append(output))
    model.model.layers[2].mlp.register_forward_pre_hook(lambda _module, arguments: (arguments[0] + kept[-1],))
    findings = verified(model)
    assert findings.seen.ran
    assert not findings.reuses_prefix


def test_blocks_of_each_make_are_looked_at(tiny: Tiny) -> None:
    model = tiny("llama")
    second = model.model.layers[1].mlp
    second.gate_proj, second.up_proj, second.down_proj = nn.Linear(32, 40), nn.Linear(32, 40), nn.Linear(40, 32)
    second.up_proj.register_forward_hook(lambda _module, _arguments, output: 2 * output)
    with pytest.raises(AnatomyError, match="layer 1 up: what model.layers.1.mlp.up_proj gives"):
        verified(model)


def test_a_model_that_cannot_be_run_is_checked_as_far_as_its_weights_go() -> None:
    model = decision()
    known = dataclasses.replace(FAMILIES["gpt2"], blocks="encoder.h")
    findings = verified(model, known)
    assert findings == Findings(Observed(obstacle=findings.seen.obstacle))
    assert findings.seen.obstacle.startswith("DecisionTransformerModel reads neither")
    twice = spelled_otherwise(known, query=known.matrices[T.OUTPUT])
    with pytest.raises(
        AnatomyError, match="layer 0 output: its entries of encoder.h.0.attn.c_proj.weight are said to be another"
    ):
        verified(model, twice)


def test_a_model_stays_as_it_was(tiny: Tiny) -> None:
    model = tiny("phi3").train()
    model.model.layers[0].eval()
    modes = [part.training for part in model.modules()]
    weights: Mapping[str, Any] = {name: weight.clone() for name, weight in model.state_dict().items()}
    drawn = torch.get_rng_state()
    verified(model)
    assert [part.training for part in model.modules()] == modes
    assert all(torch.equal(weight, weights[name]) for name, weight in model.state_dict().items())
    assert hooks_of(model) == 0
    assert torch.equal(torch.get_rng_state(), drawn)
    assert all(weight.requires_grad and weight.grad is None for weight in model.parameters())
