"""Llama and the many that share its block."""

from strop.anatomy.families.spelling import BiasFlag, Family, Spelling
from strop.anatomy.sites import MatrixType as T

_QKV = (T.QUERY, T.KEY, T.VALUE)
_GATE_UP = (T.GATE, T.UP)

LLAMA = Family(
    name="Llama-like",
    model_types=(
        "llama",
        "mistral",
        "qwen2",
        "qwen3",
        "gemma",
        "gemma2",
        "gemma3_text",
        "smollm3",
        "granite",
        "olmo",
        "olmo2",
        "stablelm",
    ),
    blocks="model.layers",
    matrices={
        T.QUERY: Spelling("self_attn.q_proj"),
        T.KEY: Spelling("self_attn.k_proj"),
        T.VALUE: Spelling("self_attn.v_proj"),
        T.OUTPUT: Spelling("self_attn.o_proj"),
        T.GATE: Spelling("mlp.gate_proj"),
        T.UP: Spelling("mlp.up_proj"),
        T.DOWN: Spelling("mlp.down_proj"),
    },
    bias_flags=(
        BiasFlag(
            "attention_bias",
            (*_QKV, T.OUTPUT),
            ("llama", "qwen3", "gemma", "gemma2", "gemma3_text", "smollm3", "granite", "olmo", "olmo2"),
        ),
        BiasFlag("mlp_bias", (*_GATE_UP, T.DOWN), ("llama", "smollm3", "granite")),
        BiasFlag("use_qkv_bias", _QKV, ("stablelm",)),
    ),
)

PHI3 = Family(
    name="Phi-3",
    model_types=("phi3",),
    blocks="model.layers",
    matrices={
        T.QUERY: Spelling("self_attn.qkv_proj", packing="stacked", packed=_QKV),
        T.KEY: Spelling("self_attn.qkv_proj", packing="stacked", packed=_QKV),
        T.VALUE: Spelling("self_attn.qkv_proj", packing="stacked", packed=_QKV),
        T.OUTPUT: Spelling("self_attn.o_proj"),
        T.GATE: Spelling("mlp.gate_up_proj", packing="stacked", packed=_GATE_UP),
        T.UP: Spelling("mlp.gate_up_proj", packing="stacked", packed=_GATE_UP),
        T.DOWN: Spelling("mlp.down_proj"),
    },
)
