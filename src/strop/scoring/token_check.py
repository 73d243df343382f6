"""A task's examples in a tokenizer's tokens: the border between prompt and answer, lengths, and rows that do not fit."""

import dataclasses
import functools

from transformers import PreTrainedTokenizerBase

from strop.errors import TaskError
from strop.scoring.encoding import TokenSequence, encode
from strop.tasks.check import Lengths
from strop.tasks.task import Task

AROUND = 4
"""Tokens that are shown on either side of the border."""


@dataclasses.dataclass(frozen=True)
class TokenCheck:
    """What `check_tokens` found."""

    before: tuple[str, ...]
    """The last tokens of an example's prompt, as the tokenizer spells them."""
    after: tuple[str, ...]
    """The first tokens of its answer."""
    prompt_tokens: Lengths | None
    """None where no row fits."""
    answer_tokens: Lengths | None
    longest: int
    """The model's context in tokens."""
    bad: tuple[str, ...]
    """Rows the model cannot be asked, each in a sentence."""


def check_tokens(
    task: Task, tokenizer: PreTrainedTokenizerBase, *, longest: int, vocabulary: int | None = None
) -> TokenCheck:
    """Tokenise every example of a task as it would be scored, and collect the rows that cannot be.

    Args:
        task: of a language model.
        tokenizer: a fast one.
        longest: the model's context in tokens.
        vocabulary: how many tokens the model knows, where it is at hand.
    """
    examples = [example for members in task.splits.values() for example in members]
    encoded = functools.partial(encode, tokenizer=tokenizer, score=task.score, longest=longest, vocabulary=vocabulary)
    found: list[TokenSequence] = []
    bad: list[str] = []
    try:
        found = encoded(examples)
    except TaskError:  # of the first bad row; the others are looked for one by one
        for example in examples:
            try:
                found += encoded([example])
            except TaskError as error:
                bad.append(str(error))
    before, after = _border(found[0], tokenizer) if found else ((), ())
    return TokenCheck(
        before,
        after,
        Lengths.of([sequence.first_scored for sequence in found]) if found else None,
        Lengths.of([len(sequence.ids) - sequence.first_scored for sequence in found]) if found else None,
        longest,
        tuple(bad),
    )


def _border(sequence: TokenSequence, tokenizer: PreTrainedTokenizerBase) -> tuple[tuple[str, ...], tuple[str, ...]]:
    first = sequence.first_scored
    words = tokenizer.convert_ids_to_tokens(list(sequence.ids))
    return tuple(words[max(first - AROUND, 0) : first]), tuple(words[first : first + AROUND])
