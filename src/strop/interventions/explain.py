"""Show which tokens of a batch an edit of hidden states touches: the very choice a forward pass makes, in words."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from transformers import PreTrainedTokenizerBase

from strop.interventions.positions import Positions
from strop.interventions.prompts import edited_tokens, layout_of

PADDING = "·"


def explain_positions(
    batch: Mapping[str, Any], positions: Positions | str, *, tokenizer: PreTrainedTokenizerBase | None = None
) -> str:
    """Return the tokens of each sequence, those an edit touches in brackets, padding as `·`, under their count.

    Args:
        batch: what a model's forward takes: `input_ids`, and `attention_mask` and `labels` where there are any. Without
            labels, call it inside `prompt_lengths`.
        positions: as an edit has them, or their text, such as `f2+l2`.
        tokenizer: to show tokens as text; their ids by default.

    Raises:
        InterventionError: where prompts end cannot be known, as for a model called on this batch.
        UsageError: the text names no positions.

    >>> import torch
    >>> ids = torch.tensor([[0, 0, 11, 12, 13, 14], [21, 22, 23, 24, 25, 26]])
    >>> labels = torch.where(ids % 10 > 3, ids, -100)
    >>> print(explain_positions({"input_ids": ids, "attention_mask": (ids > 0).long(), "labels": labels}, "f1+l1"))
    sequence 0: 2 of 3 prompt tokens edited
    · · [11] 12 [13] 14
    sequence 1: 2 of 3 prompt tokens edited
    [21] 22 [23] 24 25 26
    """
    chosen = Positions.parse(positions) if isinstance(positions, str) else positions
    layout = layout_of(batch, prompt_mask=None, whole_input=False)
    edited = edited_tokens(chosen, layout)
    real = layout.index >= 0
    if chosen.reach == "all" or layout.prompt_length is None:
        counted, kind = real.sum(1), "tokens"
    else:  # a prompt may reach beyond the tokens given
        counted, kind = (real & (layout.index < layout.prompt_length[:, None])).sum(1), "prompt tokens"
    words = _words(batch, layout.index, tokenizer)
    blocks = []
    for row, (marks, here) in enumerate(zip(edited.tolist(), real.tolist(), strict=True)):
        shown = [
            (f"[{word}]" if marked else word) if is_real else PADDING
            for word, marked, is_real in zip(words[row], marks, here, strict=True)
        ]
        blocks.append(f"sequence {row}: {sum(marks)} of {int(counted[row])} {kind} edited\n{' '.join(shown)}")
    return "\n".join(blocks)


def _words(batch: Mapping[str, Any], index: Tensor, tokenizer: PreTrainedTokenizerBase | None) -> list[list[str]]:
    ids = batch.get("input_ids")
    if not isinstance(ids, Tensor):  # embeddings have no names but their places
        return [[str(place) for place in row] for row in index.tolist()]
    if tokenizer is None:
        return [[str(token) for token in row] for row in ids.tolist()]
    return [[_shown(str(tokenizer.decode([token]))) for token in row] for row in ids.tolist()]


def _shown(text: str) -> str:
    """Return a token's text without the space before it; white space alone stays to be seen."""
    return text.strip() or repr(text)[1:-1]
