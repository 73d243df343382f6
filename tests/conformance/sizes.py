"""What makes a config tiny: three blocks, a width of 32, four heads, two key/value heads where they are grouped."""

VOCABULARY = 64
TOKENS = {"vocab_size": VOCABULARY, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
SMALL = {**TOKENS, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "max_position_embeddings": 64}
PLAIN = {**SMALL, "intermediate_size": 48}
GROUPED = {**PLAIN, "num_key_value_heads": 2}
WIDE = {**GROUPED, "head_dim": 16}
"""Heads that are wider than the hidden size divided by their number."""
GPT = {**TOKENS, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 64}
GPT_ROTARY = {**GPT, "rotary_dim": 4}

# decoders whose configs use words of their own
GPT_NEO = {
    **TOKENS, "hidden_size": 32, "num_layers": 2, "num_heads": 4, "intermediate_size": 48,
    "max_position_embeddings": 64, "attention_types": [[["global", "local"], 1]], "window_size": 8,
}  # fmt: skip
OPT = {**SMALL, "ffn_dim": 48, "word_embed_proj_dim": 32}
BLOOM = {**TOKENS, "hidden_size": 32, "n_layer": 3, "n_head": 4}
FALCON_OF_HEADS = {**SMALL, "multi_query": False, "bias": True, "parallel_attn": False, "alibi": True}
FALCON_OF_ONE_KEY = {**SMALL, "multi_query": True}
FALCON_OF_GROUPS = {**SMALL, "new_decoder_architecture": True, "num_kv_heads": 2}
MPT = {**TOKENS, "d_model": 32, "n_layers": 3, "n_heads": 4, "max_seq_len": 64}
XGLM = {
    **TOKENS, "d_model": 32, "ffn_dim": 48, "num_layers": 3, "attention_heads": 4, "max_position_embeddings": 64,
}  # fmt: skip

# mixtures of four experts, two of which read each token
MIXTURE = {**GROUPED, "num_experts_per_tok": 2}
LOCAL = {**MIXTURE, "num_local_experts": 4}
COUNTED = {**MIXTURE, "num_experts": 4, "moe_intermediate_size": 24}
SHARED = {**COUNTED, "shared_expert_intermediate_size": 24}
ROUTED = {
    **MIXTURE, "n_routed_experts": 4, "n_group": 1, "topk_group": 1, "n_shared_experts": 1,
    "moe_intermediate_size": 24, "first_k_dense_replace": 1,
}  # fmt: skip
LATENT = {
    **ROUTED, "num_key_value_heads": 4, "kv_lora_rank": 16, "q_lora_rank": 12, "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 8, "v_head_dim": 8,
}  # fmt: skip
JETMOE = {
    **TOKENS, "hidden_size": 32, "num_hidden_layers": 3, "num_key_value_heads": 2, "kv_channels": 16,
    "intermediate_size": 48, "num_local_experts": 4, "num_experts_per_tok": 2, "max_position_embeddings": 64,
}  # fmt: skip
ERNIE_MIXTURE = {
    **GROUPED, "moe_num_experts": 4, "moe_k": 2, "moe_intermediate_size": 24, "moe_num_shared_experts": 1,
    "moe_layer_start_index": 1,
}  # fmt: skip

# state space models, and blocks of more than one kind
SCAN = {**TOKENS, "hidden_size": 32, "num_hidden_layers": 3, "state_size": 8}
SCAN_OF_HEADS = {**SCAN, "num_heads": 4, "head_dim": 16, "n_groups": 1, "chunk_size": 8}
_SCANNING = {"mamba_d_state": 8, "mamba_d_conv": 4, "mamba_expand": 2}
_HEADS_SCANNING = {
    **_SCANNING, "mamba_n_heads": 4, "mamba_d_head": 16, "mamba_n_groups": 1, "mamba_chunk_size": 8,
}  # fmt: skip
JAMBA = {
    **MIXTURE, **_SCANNING, "num_hidden_layers": 4, "num_experts": 4, "attn_layer_period": 2, "attn_layer_offset": 1,
    "use_mamba_kernels": False,
}  # fmt: skip
FALCON_H1 = {**GROUPED, **_HEADS_SCANNING, "mamba_d_ssm": 64}
BAMBA = {**GROUPED, **_HEADS_SCANNING, "attn_layer_indices": [1]}
ZAMBA2 = {
    **PLAIN, **_SCANNING, "n_mamba_heads": 4, "mamba_ngroups": 1, "chunk_size": 8, "num_mem_blocks": 1,
    "layers_block_type": ["mamba", "hybrid", "mamba"], "adapter_rank": 4, "use_mamba_kernels": False,
}  # fmt: skip
RECURRENT_GEMMA = {
    **GROUPED, "lru_width": 32, "attention_window_size": 16, "block_types": ["recurrent", "attention"],
}  # fmt: skip
QWEN3_NEXT = {
    **SHARED, "head_dim": 16, "linear_key_head_dim": 8, "linear_value_head_dim": 8, "linear_num_key_heads": 2,
    "linear_num_value_heads": 4, "layer_types": ["linear_attention", "full_attention", "linear_attention"],
}  # fmt: skip
LFM2 = {**GROUPED, "block_auto_adjust_ff_dim": False, "layer_types": ["conv", "full_attention", "conv"]}
NEMOTRON_H = {
    **GROUPED, "head_dim": 8, "layers_block_type": ["linear_attention", "mlp", "full_attention", "mlp"],
    "ssm_state_size": 8, "mamba_num_heads": 4, "mamba_head_dim": 16, "n_groups": 1, "chunk_size": 8,
    "use_mamba_kernels": False,
}  # fmt: skip

# encoders, and encoders with decoders
DISTILBERT = {
    **TOKENS, "dim": 32, "n_layers": 3, "n_heads": 4, "hidden_dim": 48, "max_position_embeddings": 64,
}  # fmt: skip
DISENTANGLED = {**PLAIN, "relative_attention": True, "pos_att_type": ["c2p", "p2c"]}
NARROW = {**PLAIN, "embedding_size": 16}
T5 = {
    "vocab_size": VOCABULARY, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4,
    "decoder_start_token_id": 0,
}  # fmt: skip
BART = {
    **TOKENS, "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48,
    "encoder_attention_heads": 4, "decoder_attention_heads": 4, "max_position_embeddings": 64,
    "decoder_start_token_id": 2,
}  # fmt: skip

# models of more kinds of input than text
_EYE = {
    "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 8,
    "patch_size": 4,
}  # fmt: skip
GEMMA3 = {
    "text_config": {"model_type": "gemma3_text", **WIDE}, "vision_config": _EYE, "mm_tokens_per_image": 4,
    "image_token_index": 60, "boi_token_index": 61, "eoi_token_index": 62,
}  # fmt: skip
