"""What a model answers, in words or as the place of a choice, from token ids and indices."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from strop.statistics import Answer
from strop.tasks.examples import Example


class Said:
    """The spelling of answers to some examples.

    Args:
        examples: in their order.
        tokenizer: spells tokens.
    """

    def __init__(self, examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase) -> None:
        self._offered = [example.choices or () for example in examples]
        self._tokenizer = tokenizer
        self._texts: dict[int, str] = {}

    def tokens(self, ids: NDArray[np.int64]) -> tuple[str, ...]:
        """Return the texts of tokens, (examples,)."""
        for token in np.unique(ids).tolist():
            if token not in self._texts:
                self._texts[token] = self._text(token)
        return tuple(self._texts[token] for token in ids.tolist())

    def _text(self, token: int) -> str:
        text = str(self._tokenizer.decode([token], clean_up_tokenization_spaces=False))
        return text if "\ufffd" not in text else str(self._tokenizer.convert_ids_to_tokens(token))  # part of a letter

    def choices(self, indices: NDArray[np.int64]) -> tuple[Answer, ...]:
        """Return the texts of choices where all examples have the same ones, else their places counted from 1."""
        if all(sorted(offered) == sorted(self._offered[0]) for offered in self._offered):
            return tuple(offered[index] for offered, index in zip(self._offered, indices.tolist(), strict=True))
        return tuple(index + 1 for index in indices.tolist())
