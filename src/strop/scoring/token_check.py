"""A task's examples in a tokenizer's tokens: the border between prompt and answer, lengths, and rows that do not fit."""

import dataclasses

from transformers import PreTrainedTokenizerBase

from strop.errors import TaskError
from strop.scoring.encoding import TokenSequence, encode
from strop.scoring.seams import seams_of, tokens_before_answers
from strop.tasks.check import Lengths
from strop.tasks.examples import Example
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
    seams: tuple[str, ...] = ()
    """Rows whose prompt has other tokens before the answer than alone, each with its remedy."""


def check_tokens(task: Task, tokenizer: PreTrainedTokenizerBase, *, longest: int) -> TokenCheck:
    """Tokenise every example of a task as it would be scored, and collect the rows that cannot be.

    Args:
        task: of a language model.
        tokenizer: a fast one.
        longest: the model's context in tokens.
    """
    examples = [example for members in task.splits.values() for example in members]
    bad: list[str] = []
    try:
        found = encode(examples, tokenizer, task.score, longest=longest)
    except TaskError:  # of the first bad row; the others are looked for one by one
        examples = [example for example in examples if _fits(example, tokenizer, task, longest, bad)]
        found = encode(examples, tokenizer, task.score, longest=longest) if examples else []
    shown = next(iter(found), None)
    before, after = ((), ()) if shown is None else _border(shown, tokenizer)
    return TokenCheck(
        before,
        after,
        Lengths.of([sequence.first_scored for sequence in found]) if found else None,
        Lengths.of([len(sequence.ids) - sequence.first_scored for sequence in found]) if found else None,
        longest,
        tuple(bad),
        tuple(str(seam) for seam in seams_of(examples, tokens_before_answers(found), tokenizer).values()),
    )


def _fits(example: Example, tokenizer: PreTrainedTokenizerBase, task: Task, longest: int, bad: list[str]) -> bool:
    try:
        encode([example], tokenizer, task.score, longest=longest)
    except TaskError as error:
        bad.append(str(error))
        return False
    return True


def _border(sequence: TokenSequence, tokenizer: PreTrainedTokenizerBase) -> tuple[tuple[str, ...], tuple[str, ...]]:
    first = sequence.first_scored
    words = tokenizer.convert_ids_to_tokens(list(sequence.ids))
    return tuple(words[max(first - AROUND, 0) : first]), tuple(words[first : first + AROUND])
