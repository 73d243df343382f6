"""Prompt and answer as tokens: tokenised together, the border found from character offsets."""

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from strop.errors import TaskError
from strop.tasks.examples import Example
from strop.tasks.task_file import Score

BATCH_TOKENS = 1024
"""Most tokens of a batch, padding included; beyond it two cores gain nothing and memory grows."""

BATCH_SCORED = 192
"""Most positions of a batch whose logits are wanted: each costs a row as long as the vocabulary."""


@dataclasses.dataclass(frozen=True)
class TokenSequence:
    """A prompt with one continuation, as tokens."""

    ids: tuple[int, ...]
    first_scored: int
    """Index of the continuation's first token."""
    owner: int
    """Index of its example."""
    choice: int
    """Which of the example's continuations it is."""


@dataclasses.dataclass(frozen=True, eq=False)
class Batch:
    """Sequences of like length, padded on the right, with the positions whose next token is scored."""

    input_ids: Tensor
    """(sequences, tokens)."""
    rows: Tensor
    """(positions,): the sequence of the batch."""
    columns: Tensor
    """(positions,): the token whose logits predict the scored one."""
    targets: Tensor
    """(positions,): the token to predict."""
    members: tuple[int, ...]
    """For each row, the index of its sequence among all."""

    def slices(self) -> list[slice]:
        """Return the scored positions a few at a time: all at once but for a row as long as that."""
        count = self.rows.shape[0]
        return [slice(start, min(start + BATCH_SCORED, count)) for start in range(0, count, BATCH_SCORED)]


def encode(
    examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase, score: Score, *, longest: int
) -> list[TokenSequence]:
    """Turn examples into token sequences, one for each continuation that is scored.

    A token that reaches past the prompt's last character belongs to the continuation. For `choice` every choice becomes
    a sequence; for `first_token` only the answer does, once its row's choices are seen to begin with different tokens.

    Args:
        examples: with choices where the score is `choice`, and where they are the labels of `first_token`.
        tokenizer: a fast one.
        score: the task's.
        longest: the model's context in tokens.

    Raises:
        TaskError: a row is longer than the context, its prompt or continuation has no token of its own, or two labels
            begin with the same token.
    """
    pairs = [
        (owner, index, example.prompt, continuation)
        for owner, example in enumerate(examples)
        for index, continuation in enumerate(_continuations(example, score))
    ]
    texts = [prompt + continuation for _, _, prompt, continuation in pairs]
    encoded = tokenizer(texts, return_offsets_mapping=True, return_special_tokens_mask=True, verbose=False)
    sequences = []
    for position, (owner, index, prompt, continuation) in enumerate(pairs):
        ids: list[int] = encoded["input_ids"][position]
        offsets: list[tuple[int, int]] = encoded["offset_mapping"][position]
        special: list[int] = encoded["special_tokens_mask"][position]
        while ids and special[len(ids) - 1]:  # an end-of-text token some tokenizers append
            ids = ids[:-1]
        scored = [i for i, (_, end) in enumerate(offsets[: len(ids)]) if end > len(prompt) and not special[i]]
        where = _place(examples[owner])
        if not scored:
            raise TaskError(f"{where}: the answer {continuation!r} has no token of its own; drop the row.")
        first = max(scored[0], 1) if score == "perplexity" else scored[0]
        if first == 0:
            raise TaskError(f"{where}: the prompt has no token before the answer {continuation!r}; give it one.")
        if first >= len(ids):
            raise TaskError(f"{where}: one token alone has nothing to be predicted from; drop the row.")
        if len(ids) > longest:
            raise TaskError(f"{where}: {len(ids)} tokens do not fit the model's context of {longest}; shorten the row.")
        sequences.append(TokenSequence(tuple(ids), first, owner, index))
    return _answers_told_apart(examples, sequences, tokenizer) if score == "first_token" else sequences


def batches_of(sequences: Sequence[TokenSequence], score: Score, *, device: torch.device) -> list[Batch]:
    """Group sequences of like length into batches, shortest first.

    Args:
        sequences: from `encode`.
        score: `first_token` scores one position a sequence, all others the whole continuation.
        device: where the model wants its token ids.
    """
    order = sorted(range(len(sequences)), key=lambda index: (len(sequences[index].ids), index))
    groups: list[list[int]] = []
    scored = 0
    for index in order:
        length, wanted = len(sequences[index].ids), _scored(sequences[index], score)
        if not groups or (len(groups[-1]) + 1) * length > BATCH_TOKENS or scored + wanted > BATCH_SCORED:
            groups.append([])
            scored = 0
        groups[-1].append(index)
        scored += wanted
    return [_pad([sequences[index] for index in group], tuple(group), score, device) for group in groups]


def _continuations(example: Example, score: Score) -> tuple[str, ...]:
    return example.choices if score in ("choice", "first_token") and example.choices else (example.answer,)


def _answers_told_apart(
    examples: Sequence[Example], sequences: Sequence[TokenSequence], tokenizer: PreTrainedTokenizerBase
) -> list[TokenSequence]:
    """Return the answers' sequences, or raise TaskError where two labels of a row begin with the same token."""
    answers = []
    first_with: dict[tuple[int, int], str] = {}
    for sequence in sequences:
        example = examples[sequence.owner]
        label = _continuations(example, "first_token")[sequence.choice]
        token = sequence.ids[sequence.first_scored]
        twin = first_with.setdefault((sequence.owner, token), label)
        if twin != label:
            raise TaskError(
                f"{_place(example)}: the choices {twin!r} and {label!r} begin with the same token "
                f"{tokenizer.convert_ids_to_tokens(token)!r}, and score: first_token cannot tell them apart; "
                "reword one, or use score: choice."
            )
        if label == example.answer:
            answers.append(sequence)
    return answers


def _scored(sequence: TokenSequence, score: Score) -> int:
    return 1 if score == "first_token" else len(sequence.ids) - sequence.first_scored


def _pad(sequences: list[TokenSequence], members: tuple[int, ...], score: Score, device: torch.device) -> Batch:
    width = max(len(sequence.ids) for sequence in sequences)
    input_ids = torch.zeros(len(sequences), width, dtype=torch.long)
    rows, columns, targets = [], [], []
    for row, sequence in enumerate(sequences):
        input_ids[row, : len(sequence.ids)] = torch.tensor(sequence.ids)
        for position in range(sequence.first_scored, sequence.first_scored + _scored(sequence, score)):
            rows.append(row)
            columns.append(position - 1)
            targets.append(sequence.ids[position])
    return Batch(
        input_ids.to(device),
        torch.tensor(rows, device=device),
        torch.tensor(columns, device=device),
        torch.tensor(targets, device=device),
        members,
    )


def _place(example: Example) -> str:
    return f"row {example.row} (prompt {_short(example.prompt)})"


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:37] + "...")
