"""Texts as tokens, with the tokenizer's own special tokens once and only before them."""

import dataclasses
from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from strop.tasks.examples import Example


@dataclasses.dataclass(frozen=True)
class Tokens:
    """A text as tokens."""

    ids: tuple[int, ...]
    ends: tuple[int, ...]
    """Where in the text each ends, in characters; 0 for one the tokenizer puts before or behind it."""


def tokens_of(
    texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, *, adds_special: bool, keeps_last: bool = False
) -> list[Tokens]:
    """Return texts as tokens, without the end-of-text token some tokenizers append.

    Args:
        texts: as they stand.
        tokenizer: a fast one.
        adds_special: let it put its special tokens before a text, unless that begins with them already.
        keeps_last: keep those it appends, for a model that reads in both directions.
    """
    if not texts:
        return []  # of which some tokenizers make an error
    encoded = tokenizer(
        list(texts),
        return_offsets_mapping=True,
        return_special_tokens_mask=True,
        add_special_tokens=adds_special,
        verbose=False,
    )
    found = []
    for ids, offsets, special in zip(
        encoded["input_ids"], encoded["offset_mapping"], encoded["special_tokens_mask"], strict=True
    ):
        first, last = twice_first(ids, special), len(ids)
        while not keeps_last and last > first and special[last - 1]:
            last -= 1
        own = range(first, last)
        found.append(Tokens(tuple(ids[first:last]), tuple(0 if special[i] else offsets[i][1] for i in own)))
    return found


def twice_first(ids: Sequence[int], special: Sequence[int]) -> int:
    """Return how many tokens at the front the tokenizer put before a text that begins with the same ones itself.

    Args:
        ids: of the whole.
        special: which the tokenizer put there, 1 or 0.
    """
    put = next((index for index, added in enumerate(special) if not added), 0)
    return put if list(ids[put : 2 * put]) == list(ids[:put]) else 0


def adds_special_tokens(examples: Sequence[Example]) -> bool:
    """Say whether the tokenizer puts its special tokens around texts: a chat template has written them already."""
    return all(example.chat is None for example in examples)
