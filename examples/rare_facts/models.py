"""Small models of three shapes, and how they learn the world's text."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPTNeoXConfig,
    MixtralConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from examples.rare_facts.world import END
from strop import Family, MatrixType, Spelling

LONGEST = 128

SHAPES: Mapping[str, Callable[..., PreTrainedConfig]] = {
    "gpt2": lambda hidden, layers, **shared: GPT2Config(
        n_embd=hidden, n_layer=layers, n_head=4, n_positions=LONGEST, **shared
    ),
    "gpt_neox": lambda hidden, layers, **shared: GPTNeoXConfig(
        hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=4, intermediate_size=4 * hidden,
        max_position_embeddings=LONGEST, **shared,
    ),
    "mixtral": lambda hidden, layers, **shared: MixtralConfig(
        hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=4, num_key_value_heads=2,
        intermediate_size=2 * hidden, num_local_experts=4, num_experts_per_tok=2, max_position_embeddings=LONGEST, **shared,
    ),
}  # fmt: skip

_EXPERTS = Spelling(
    "mlp.experts",
    parameter="gate_up_proj",
    experts="stacked",
    packing="stacked",
    packed=(MatrixType.GATE, MatrixType.UP),
)
MIXTRAL = Family(
    name="Mixtral",
    model_types=("mixtral",),
    blocks="model.layers",
    matrices={
        MatrixType.QUERY: Spelling("self_attn.q_proj"),
        MatrixType.KEY: Spelling("self_attn.k_proj"),
        MatrixType.VALUE: Spelling("self_attn.v_proj"),
        MatrixType.OUTPUT: Spelling("self_attn.o_proj"),
        MatrixType.GATE: _EXPERTS,
        MatrixType.UP: _EXPERTS,
        MatrixType.DOWN: Spelling("mlp.experts", parameter="down_proj", experts="stacked"),
    },
)
"""Where a Mixtral keeps its matrices: gate and up of all experts in one parameter."""


def word_tokenizer(words: Sequence[str]) -> PreTrainedTokenizerFast:
    """Return a tokenizer with a token for each word, the first of which ends a text."""
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token=END))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, bos_token=END, pad_token=END)


def build(shape: str, *, vocabulary: int, hidden: int, layers: int, seed: int) -> PreTrainedModel:
    """Return a causal language model of a shape, with random weights.

    Args:
        shape: one of `SHAPES`.
        vocabulary: tokens.
        hidden: size of its hidden states.
        layers: its blocks.
        seed: of its weights.
    """
    torch.manual_seed(seed)
    ends: dict[str, Any] = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    config = SHAPES[shape](hidden, layers, vocab_size=vocabulary, tie_word_embeddings=False, **ends)
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


def learn(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    sentences: Sequence[str],
    *,
    window: int,
    batch: int,
    rate: float,
    seed: int,
) -> float:
    """Teach a model the sentences, in place, each read once, and return its loss on the last tenth in nats per token.

    Args:
        model: to learn.
        tokenizer: its own.
        sentences: in the order they are read.
        window: sentences read in one row, one after another.
        batch: rows of a step.
        rate: AdamW's, at its highest.
        seed: of dropout.
    """
    torch.manual_seed(seed)
    rows = [tokenizer(" ".join(sentences[at : at + window]))["input_ids"] for at in range(0, len(sentences), window)]
    width = min(map(len, rows))
    ids = torch.tensor([row[:width] for row in rows])
    steps = max(1, len(ids) // batch)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.1)
    losses: list[float] = []
    model.train()
    for step in range(steps):
        read = ids[step * batch : (step + 1) * batch]
        loss = model(input_ids=read, labels=read, use_cache=False).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(float(loss.item()))
    model.eval()
    late = losses[-max(1, steps // 10) :]
    return sum(late) / len(late)


def save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write a model and its tokenizer as a checkpoint any command of Strop takes."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
