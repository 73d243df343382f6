"""Prompts whose last tokens are others before an answer than at their end, and what follows from that.

What is scored, learned and generated goes on from the same tokens all the same: those that prompt and answer have before
the answer's first.
"""

import contextlib
import contextvars
import dataclasses
import warnings
from collections.abc import Iterator, Sequence

from transformers import PreTrainedTokenizerBase

from strop.errors import StropWarning, TaskError
from strop.scoring.chat_template import asked_of
from strop.scoring.forms import TokenSequence
from strop.scoring.place import place_of
from strop.scoring.tokens import adds_special_tokens, tokens_of
from strop.tasks.examples import Example

_TOLD: contextvars.ContextVar[set[str] | None] = contextvars.ContextVar("strop_told", default=None)
"""The remedies that were said already in a block of `telling_once`; None outside of one."""


@dataclasses.dataclass(frozen=True)
class Seam:
    """Where the tokens before an answer are not those the prompt has alone."""

    example: Example
    rest: str | None
    """The end of the prompt that is written anew by whoever answers; None where it ends inside a letter."""

    @property
    def melts(self) -> bool:
        """Whether a token holds some of the prompt and some of the answer."""
        return self.rest != ""

    @property
    def is_blank(self) -> bool:
        """Whether only spaces and line breaks of the prompt are written anew."""
        return self.rest is not None and not self.rest.strip()

    @property
    def remedy(self) -> str:
        """What to write in the task file."""
        if self.rest == " ":
            return "begin the answer with the space, and end the prompt before it"
        if self.is_blank and self.example.prompt[-1:].isspace():
            return "begin the answer with the spaces or line breaks that end the prompt"
        return "end the prompt where a word ends, and begin the answer with the space"

    def __str__(self) -> str:
        what = "last token melts into" if self.melts else "last tokens change with"
        return f"{place_of(self.example)}: the prompt's {what} the answer; {self.remedy}"


def seams_of(
    examples: Sequence[Example], before: Sequence[tuple[int, ...]], tokenizer: PreTrainedTokenizerBase
) -> dict[int, Seam]:
    """Return the prompts whose tokens change with their answer, by the index of their example.

    Args:
        examples: that were encoded.
        before: for each, the tokens before its answer; see `tokens_before_answers`.
        tokenizer: that encoded them.
    """
    prompts = [asked_of(example, tokenizer).prompt for example in examples]
    alone = tokens_of(prompts, tokenizer, adds_special=adds_special_tokens(examples))
    return {
        owner: Seam(example, _rest(alone[owner].ids, before[owner], tokenizer))
        for owner, example in enumerate(examples)
        if prompts[owner] and alone[owner].ids != before[owner]
    }


def tokens_before_answers(sequences: Sequence[TokenSequence]) -> list[tuple[int, ...]]:
    """Return for each example the tokens that are scored, learned and generated from.

    Args:
        sequences: one or more for each example, in their order.
    """
    return list({sequence.owner: sequence.ids[: sequence.first_scored] for sequence in sequences}.values())


@contextlib.contextmanager
def telling_once() -> Iterator[None]:
    """Let `tell` say the same remedy once for a block, in this thread, whatever the examples."""
    token = _TOLD.set(set())
    try:
        yield
    finally:
        _TOLD.reset(token)


def tell(seams: dict[int, Seam]) -> None:
    """Say, once for all of them, that prompts change with their answers: the first one by row and remedy."""
    told, remedies = _TOLD.get(), {seam.remedy for seam in seams.values()}
    if not seams or (told is not None and remedies <= told):
        return
    if told is not None:
        told |= remedies
    others = f" ({len(seams)} rows in all)" if len(seams) > 1 else ""
    warnings.warn(f"{next(iter(seams.values()))}{others}.", StropWarning, stacklevel=3)


def refuse_unlike(seams: dict[int, Seam], *, stops: Sequence[str]) -> None:
    """Raise TaskError where a model cannot write on from the tokens that an answer is learned behind.

    Spaces and line breaks it can write anew; letters of the prompt it might write otherwise.

    Args:
        seams: of prompts that are to be written on from.
        stops: texts that end what is written.
    """
    for seam in seams.values():
        if not seam.is_blank or any(stop in str(seam.rest) for stop in stops):
            raise TaskError(f"{seam}, for what is learned and what is written would go on from two prompts.")


def _rest(alone: Sequence[int], before: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> str | None:
    """Return what the tokens of a prompt alone spell beyond those it has before an answer."""
    whole, kept = (str(tokenizer.decode(list(ids), clean_up_tokenization_spaces=False)) for ids in (alone, before))
    return whole.removeprefix(kept) if whole.startswith(kept) else None
