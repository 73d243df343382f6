"""Tiny models that no family of the tests' own describes, and how they are spelled."""

from collections.abc import Mapping
from typing import Any

import torch
import transformers
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForSeq2SeqLM

from strop.anatomy import Family, MatrixType, Spelling

T = MatrixType
QKV, GATE_UP = (T.QUERY, T.KEY, T.VALUE), (T.GATE, T.UP)
SPECIAL = {"vocab_size": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
BODY = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 64, **SPECIAL}
GATED = {**BODY, "intermediate_size": 48}
N = {"n_embd": 32, "n_layer": 2, "n_head": 4, **SPECIAL}
FALCON = {**BODY, "alibi": False}

SETTINGS: Mapping[str, dict[str, Any]] = {
    "falcon-7b": {**FALCON, "multi_query": True, "new_decoder_architecture": False},
    "falcon-rw": {**FALCON, "multi_query": False, "new_decoder_architecture": False, "alibi": True},
    "falcon-40b": {**FALCON, "new_decoder_architecture": True, "num_kv_heads": 2},
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 4, **SPECIAL},
    "mpt": {"d_model": 32, "n_layers": 2, "n_heads": 4, "expansion_ratio": 2, "max_seq_len": 64, **SPECIAL},
    "gpt_bigcode": {**N, "multi_query": True},
    "gpt_bigcode-heads": {**N, "multi_query": False},
    "gpt2": N,
    "gpt_neox": GATED,
    "phi3": {**GATED, "num_key_value_heads": 2},
    "persimmon": GATED,
    "codegen": {**N, "rotary_dim": 4},
    "codegen-8": {**N, "n_head": 8, "rotary_dim": 4},
    "opt": {**BODY, "ffn_dim": 48, "word_embed_proj_dim": 32},
    "phi": {**GATED, "num_key_value_heads": 4, "partial_rotary_factor": 0.5},
    "llama": {**GATED, "num_key_value_heads": 2},
    "bitnet": {**GATED, "num_key_value_heads": 2},
    "olmo2": {**GATED, "num_key_value_heads": 2},
    "gptj": {**N, "rotary_dim": 4},
    "mamba": {**SPECIAL, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 4},
    "mixtral": {**GATED, "num_key_value_heads": 2, "num_local_experts": 4},
}
MASKED: Mapping[str, dict[str, Any]] = {
    "bert": GATED,
    "modernbert": {**GATED, "cls_token_id": 1, "sep_token_id": 2},
    "albert": {**GATED, "embedding_size": 16},
    "distilbert": {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48, "vocab_size": 64},
    "deberta-v2": {
        **GATED, "relative_attention": True, "pos_att_type": ["p2c", "c2p"], "share_att_key": True, "position_buckets": 8,
    },
}  # fmt: skip
SEQ2SEQ: Mapping[str, dict[str, Any]] = {
    "t5": {
        "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4, "vocab_size": 64, "decoder_start_token_id": 0,
        "pad_token_id": 0, "eos_token_id": 1,
    },
}  # fmt: skip
KINDS = ((SETTINGS, AutoModelForCausalLM), (MASKED, AutoModelForMaskedLM), (SEQ2SEQ, AutoModelForSeq2SeqLM))


def make(name: str, *, dtype: torch.dtype = torch.float32, **changes: Any) -> Any:
    """Return a tiny random model, the same on every call: a model type, or one of its layouts after a dash."""
    settings, kind = next((table[name], kind) for table, kind in KINDS if name in table)
    model_type = name if name in transformers.CONFIG_MAPPING else name.split("-")[0]
    torch.manual_seed(0)
    config = AutoConfig.for_model(model_type, **{**settings, **changes})
    return kind.from_config(config, dtype=dtype).eval()


def vision() -> Any:
    """Return a tiny classifier of images."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    return transformers.ViTForImageClassification(transformers.ViTConfig(**sizes, image_size=8, patch_size=4)).eval()


def decision() -> Any:
    """Return a tiny model that reads neither token ids nor images."""
    torch.manual_seed(0)
    config = transformers.DecisionTransformerConfig(
        state_dim=5, act_dim=3, hidden_size=32, n_layer=2, n_head=4, vocab_size=1, bos_token_id=0, eos_token_id=0
    )
    return transformers.DecisionTransformerModel(config).eval()


def family(
    blocks: str,
    attention: str | tuple[str, str, str],
    output: str,
    mlp: tuple[str, ...],
    *,
    packing: Any = "stacked",
    packed: tuple[MatrixType, ...] = QKV,
    transposed: bool = False,
    **others: Any,
) -> Family:
    """Return a family by the paths of its modules: one fused or three for attention; (up, down) or (gate, up, down)."""
    if isinstance(attention, str):
        spelled = {part: Spelling(attention, packing, packed, transposed) for part in QKV}
    else:
        spelled = {part: Spelling(path, transposed=transposed) for part, path in zip(QKV, attention, strict=True)}
    parts = (T.OUTPUT, *(() if len(mlp) == 2 else (T.GATE,)), T.UP, T.DOWN)
    spelled |= {part: Spelling(path, transposed=transposed) for part, path in zip(parts, (output, *mlp), strict=True)}
    return Family("own", (), blocks, spelled, **others)


FAMILIES = {
    "falcon-7b": family(
        "transformer.h", "self_attention.query_key_value", "self_attention.dense",
        ("mlp.dense_h_to_4h", "mlp.dense_4h_to_h"), block_returns="tuple",
    ),
    "falcon-rw": family(
        "transformer.h", "self_attention.query_key_value", "self_attention.dense",
        ("mlp.dense_h_to_4h", "mlp.dense_4h_to_h"), packing="interleaved", block_returns="tuple",
    ),
    "mpt": family(
        "transformer.blocks", "attn.Wqkv", "attn.out_proj", ("ffn.up_proj", "ffn.down_proj"), block_returns="tuple"
    ),
    "gpt_bigcode": family("transformer.h", "attn.c_attn", "attn.c_proj", ("mlp.c_fc", "mlp.c_proj")),
    "gpt2": family("transformer.h", "attn.c_attn", "attn.c_proj", ("mlp.c_fc", "mlp.c_proj"), transposed=True),
    "opt": family(
        "model.decoder.layers", ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"), "self_attn.out_proj",
        ("fc1", "fc2"),
    ),
    "phi": family(
        "model.layers", ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"), "self_attn.dense",
        ("mlp.fc1", "mlp.fc2"),
    ),
    "albert": family(
        "albert.encoder.albert_layer_groups", tuple(f"albert_layers.0.attention.{part}" for part in QKV),
        "albert_layers.0.attention.dense", ("albert_layers.0.ffn", "albert_layers.0.ffn_output"), causal=False,
        calls_per_block=2, resumes=False,
    ),
}  # fmt: skip
FAMILIES["falcon-40b"] = FAMILIES["bloom"] = FAMILIES["falcon-rw"]


def hooks_of(model: nn.Module) -> int:
    """Return how many hooks there are on a model's modules."""
    return sum(len(part._forward_hooks) + len(part._forward_pre_hooks) for part in model.modules())
