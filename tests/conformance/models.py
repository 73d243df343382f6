"""The architectures the suite runs on, one line each: a tiny random model with every parameter drawn, biases and norms too."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, Literal

import torch
from tests.conformance import sizes
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    PreTrainedModel,
)

TRAITS: Mapping[str, str] = {
    "runs whole": "what enters a block is not all it reads",
    "reads padding on the left": "transformers lets this model's tokens see the padding before them",
    "reads padding on the right": "transformers lets this model's tokens see the padding behind them",
    "counts padding on the left": "transformers counts this model's positions from the padding on",
    "recomputes nothing": "does not support activation checkpointing",
}
"""What an architecture cannot do, and why."""

Head = Literal["causal", "masked", "classes", "seq2seq", "images"]

_CLASSES: Mapping[Head, Any] = {
    "causal": AutoModelForCausalLM,
    "masked": AutoModelForMaskedLM,
    "classes": AutoModelForSequenceClassification,
    "seq2seq": AutoModelForSeq2SeqLM,
    "images": AutoModelForImageTextToText,
}


@dataclasses.dataclass(frozen=True)
class Member:
    """One architecture of the suite.

    Args:
        model_type: as a config.json says it.
        settings: what makes its config tiny.
        head: what the model is loaded for.
        variant: tells members of one model type apart.
        fused: what a module, or a parameter of several experts, holds one below the other: `query key value`; `by head`,
            `by group`, `by share` or `by row` where they alternate.
        experts_read_rows: the matrices of experts are stored as (in, out).
        traits: what it cannot do; the suite asks for the refusal, in the words of `TRAITS`.
    """

    model_type: str
    settings: Mapping[str, Any] = dataclasses.field(default_factory=lambda: sizes.GROUPED)
    head: Head = "causal"
    variant: str = ""
    fused: Mapping[str, str] = dataclasses.field(default_factory=lambda: {"gate_up_proj": "gate up"})
    experts_read_rows: bool = False
    traits: tuple[str, ...] = ()

    @property
    def group(self) -> str:
        """The heading under which the page of models lists it."""
        groups = {
            "dense": DENSE, "mixture": MIXTURES, "hybrid": HYBRIDS, "encoder": ENCODERS,
            "encoder-decoder": ENCODER_DECODERS, "several inputs": OF_MORE_INPUTS,
        }  # fmt: skip
        return next(group for group, members in groups.items() if self in members)

    @property
    def name(self) -> str:
        """What its tests are called."""
        return f"{self.model_type}-{self.variant}" if self.variant else self.model_type

    def config(self) -> Any:
        """Return its tiny config."""
        return AutoConfig.for_model(self.model_type, **self.settings)

    def build(self) -> PreTrainedModel:
        """Return a tiny random model in float32, the same on every call."""
        torch.manual_seed(0)
        model: PreTrainedModel = _CLASSES[self.head].from_config(self.config(), dtype=torch.float32)
        _draw(model)
        return model.eval()


@torch.no_grad()
def _draw(model: PreTrainedModel) -> None:
    """Draw matrices larger than is usual, so that edits show in the logits; move vectors and what a scan decays by a little."""
    for name, parameter in model.named_parameters():
        if parameter.ndim >= 2 and not name.endswith("A_log"):
            parameter.normal_(0, 0.15)
        else:
            parameter.add_(torch.randn_like(parameter) * 0.1)


DENSE = (
    Member("llama"),
    Member("mistral"),
    Member("ministral", {**sizes.GROUPED, "head_dim": 8}),
    Member("qwen2"),
    Member("qwen3", sizes.WIDE),
    Member("gemma", sizes.WIDE),
    Member("gemma2", sizes.WIDE),
    Member("gemma3_text", sizes.WIDE),
    Member("phi"),
    Member("phi3", fused={"qkv_proj": "query key value", "gate_up_proj": "gate up"}),
    Member("gpt2", sizes.GPT, fused={"c_attn": "query key value"}),
    Member("gptj", sizes.GPT_ROTARY),
    Member("gpt_neo", sizes.GPT_NEO),
    Member("gpt_neox", sizes.PLAIN, fused={"query_key_value": "query key value by head"}),
    Member("opt", sizes.OPT),
    Member("bloom", sizes.BLOOM, fused={"query_key_value": "query key value by head"}),
    Member("falcon", sizes.FALCON_OF_HEADS, variant="heads", fused={"query_key_value": "query key value by head"}),
    Member("falcon", sizes.FALCON_OF_ONE_KEY, variant="multi-query", fused={"query_key_value": "query key value"}),
    Member("falcon", sizes.FALCON_OF_GROUPS, variant="grouped", fused={"query_key_value": "query key value by group"}),
    Member("mpt", sizes.MPT, fused={"Wqkv": "query key value"}),
    Member("stablelm"),
    Member("starcoder2"),
    Member("gpt_bigcode", sizes.GPT, fused={"c_attn": "query key value"}),
    Member("cohere"),
    Member("cohere2", sizes.WIDE),
    Member("olmo"),
    Member("olmo2"),
    Member("olmo3"),
    Member("granite"),
    Member("smollm3"),
    Member("glm", sizes.WIDE),
    Member("glm4", sizes.WIDE),
    Member("nemotron"),
    Member("helium", {**sizes.GROUPED, "head_dim": 8}),
    Member("exaone4", sizes.WIDE),
    Member("arcee"),
    Member("apertus"),
    Member("seed_oss", sizes.WIDE),
    Member("ernie4_5", sizes.WIDE),
    Member("persimmon", sizes.PLAIN, fused={"query_key_value": "query key value by head"}),
    Member("biogpt", sizes.PLAIN),
    Member("codegen", {**sizes.GPT_ROTARY, "n_ctx": 64}, fused={"qkv_proj": "query value key by share"}),
    Member("xglm", sizes.XGLM),
    Member("ctrl", {**sizes.GPT, "dff": 48}, traits=("recomputes nothing",)),
    Member("hunyuan_v1_dense", sizes.WIDE),
    Member("diffllama"),
    Member("bitnet"),
    Member("vaultgemma", sizes.WIDE),
    Member("nanochat"),
    Member("doge"),
    Member("openai-gpt", sizes.GPT, fused={"c_attn": "query key value"}, traits=("recomputes nothing",)),
    Member("modernbert-decoder", sizes.PLAIN, fused={"Wi": "gate up"}),
)
MIXTURES = (
    Member("mixtral", sizes.LOCAL),
    Member("qwen2_moe", sizes.SHARED),
    Member("qwen3_moe", {**sizes.COUNTED, "head_dim": 16}),
    Member(
        "gpt_oss", {**sizes.LOCAL, "head_dim": 16}, fused={"gate_up_proj": "gate up by row"}, experts_read_rows=True
    ),
    Member("deepseek_v2", sizes.LATENT),
    Member("deepseek_v3", sizes.LATENT),
    Member("olmoe", sizes.COUNTED),
    Member("granitemoe", sizes.LOCAL),
    Member("dots1", sizes.ROUTED),
    Member("glm4_moe", {**sizes.ROUTED, "head_dim": 16}),
    Member("phimoe", sizes.LOCAL),
    Member(
        "jetmoe",
        sizes.JETMOE,
        fused={"input_linear": "gate up", "kv_proj": "key value"},
        traits=("recomputes nothing",),
    ),
    Member("minimax_m2", {**sizes.LOCAL, "head_dim": 16}),
    Member("ernie4_5_moe", sizes.ERNIE_MIXTURE),
)
HYBRIDS = (
    Member("mamba", sizes.SCAN),
    Member("mamba2", sizes.SCAN_OF_HEADS),
    Member("falcon_mamba", sizes.SCAN),
    Member("jamba", sizes.JAMBA),
    Member("falcon_h1", sizes.FALCON_H1),
    Member("bamba", sizes.BAMBA),
    Member("zamba2", sizes.ZAMBA2),
    Member("recurrent_gemma", sizes.RECURRENT_GEMMA, traits=("reads padding on the left",)),
    Member("qwen3_next", sizes.QWEN3_NEXT),
    Member("lfm2", sizes.LFM2),
    Member("nemotron_h", sizes.NEMOTRON_H),
)
ENCODERS = (
    Member("bert", sizes.PLAIN, "masked"),
    Member("bert", sizes.PLAIN, "classes", "classes", traits=("reads padding on the left",)),
    Member("roberta", sizes.PLAIN, "masked"),
    Member("roberta", sizes.PLAIN, "classes", "classes", traits=("reads padding on the left",)),
    Member("xlm-roberta", sizes.PLAIN, "masked"),
    Member("camembert", sizes.PLAIN, "masked"),
    Member("distilbert", sizes.DISTILBERT, "masked"),
    Member("deberta", sizes.DISENTANGLED, "masked", fused={"in_proj": "query key value by head"}),
    Member("deberta-v2", {**sizes.DISENTANGLED, "share_att_key": True, "position_buckets": 8}, "masked"),
    Member("modernbert", sizes.PLAIN, "masked", fused={"Wqkv": "query key value", "Wi": "gate up"}),
    Member("albert", sizes.NARROW, "masked", traits=("runs whole", "recomputes nothing")),
    Member("electra", sizes.NARROW, "masked"),
    Member("mpnet", sizes.PLAIN, "masked", traits=("recomputes nothing", "reads padding on the left")),
)
ENCODER_DECODERS = (
    Member("t5", sizes.T5, "seq2seq", traits=("runs whole",)),
    Member(
        "t5",
        {**sizes.T5, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
        "seq2seq",
        "gated",
        traits=("runs whole",),
    ),
    Member("bart", sizes.BART, "seq2seq", traits=("runs whole", "counts padding on the left")),
)
OF_MORE_INPUTS = (Member("gemma3", sizes.GEMMA3, "images"),)

MEMBERS = (*DENSE, *MIXTURES, *HYBRIDS, *ENCODERS, *ENCODER_DECODERS, *OF_MORE_INPUTS)


@functools.cache
def built(name: str) -> PreTrainedModel:
    """Return a member's model, made once for all tests; a test that changes it restores it."""
    return next(member for member in MEMBERS if member.name == name).build()
