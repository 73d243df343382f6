"""Train examples as tokens, and a batch of them as tensors."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase

from strop.scoring.encoding import encode, refuse_unknown_token, right_padded
from strop.scoring.seams import seams_of, tell, tokens_before_answers
from strop.tasks import Task

Item = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class TrainSequence:
    """A prompt with its answer, as tokens."""

    ids: tuple[int, ...]
    prompt_length: int
    """How many of them are the prompt's; the loss is taken on all others."""


class TrainSet(Dataset[Item]):
    """The sequences a training learns from.

    Args:
        sequences: at least one.
    """

    def __init__(self, sequences: Sequence[TrainSequence]) -> None:
        self.sequences = tuple(sequences)

    @classmethod
    def of(
        cls,
        task: Task,
        tokenizer: PreTrainedTokenizerBase,
        *,
        limit: int | None,
        longest: int,
        vocabulary: int | None = None,
    ) -> "TrainSet":
        """Encode a task's train split, as it is encoded where it is scored.

        Where answers are generated the end-of-text token is learned too, so that the model stops.

        Args:
            task: with a train split.
            tokenizer: a fast one.
            limit: most examples.
            longest: the model's context in tokens.
            vocabulary: how many tokens the model knows, where it is at hand.

        Raises:
            TaskError: there is no train split, or a row does not fit.
        """
        score = "exact" if task.score in ("choice", "first_token", "generate") else task.score
        end = (tokenizer.eos_token_id,) if task.score == "generate" and tokenizer.eos_token_id is not None else ()
        examples = task.examples("train", limit=limit)
        refuse_unknown_token(end, tokenizer, where="the end of text", vocabulary=vocabulary)
        found = encode(examples, tokenizer, score, longest=longest - len(end), vocabulary=vocabulary)
        if score != "perplexity":
            tell(seams_of(examples, tokens_before_answers(found), tokenizer))
        return cls([TrainSequence(sequence.ids + end, sequence.first_scored) for sequence in found])

    def __len__(self) -> int:
        return len(self.sequences)

    def __getitem__(self, index: int) -> Item:
        return {"index": index, "sequence": self.sequences[index]}

    @property
    def tokens(self) -> int:
        """Tokens of one epoch, padding left out."""
        return sum(len(sequence.ids) for sequence in self.sequences)


class Listed(Dataset[Item]):
    """Whatever a training learns from, each with its index.

    Args:
        values: at least one.
        name: what an item calls its value.
    """

    def __init__(self, values: Sequence[Any], *, name: str) -> None:
        self.values, self._name = tuple(values), name

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: int) -> Item:
        return {"index": index, self._name: self.values[index]}


def collate(items: Sequence[Item]) -> dict[str, Tensor]:
    """Return a batch, padded on the right.

    Returns:
        `input_ids` (batch, tokens): each sequence up to its last token, which is only predicted and not read;
        `labels` (batch, tokens + 1): the whole sequences, −100 on prompt and padding; `prompt_lengths` and `index`, (batch,).
    """
    sequences = [item["sequence"] for item in items]
    whole = right_padded([sequence.ids for sequence in sequences])
    lengths = torch.tensor([len(sequence.ids) for sequence in sequences])
    prompt_lengths = torch.tensor([sequence.prompt_length for sequence in sequences])
    place = torch.arange(whole.shape[1])
    answered = (place >= prompt_lengths[:, None]) & (place < lengths[:, None])
    return {
        "input_ids": whole[:, :-1],
        "labels": torch.where(answered, whole, -100),
        "prompt_lengths": prompt_lengths,
        "index": torch.tensor([item["index"] for item in items]),
    }
