"""A task's examples in a tokenizer's tokens: the border between prompt and answer, lengths, and rows that do not fit."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence

from transformers import PreTrainedTokenizerBase

from strop.errors import TaskError
from strop.scoring.encoding import encode
from strop.scoring.forms import CAUSAL, Form, PairedForm, TokenSequence
from strop.scoring.generation import refuse_too_long
from strop.scoring.seams import Seam, refuse_unlike, seams_of, tokens_before_answers
from strop.tasks.check import Lengths
from strop.tasks.examples import Example
from strop.tasks.task import Task
from strop.tasks.task_file import GenerateSettings

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


def check_tokens(
    task: Task,
    tokenizer: PreTrainedTokenizerBase,
    *,
    longest: int,
    vocabulary: int | None = None,
    form: Form = CAUSAL,
) -> TokenCheck:
    """Tokenise every example of a task as it would be scored, and collect the rows that cannot be.

    Args:
        task: of a language model.
        tokenizer: a fast one.
        longest: the model's context in tokens.
        vocabulary: how many tokens the model knows, where it is at hand.
        form: how the model reads them.
    """
    examples = [example for members in task.splits.values() for example in members]
    encoded = functools.partial(
        encode, tokenizer=tokenizer, score=task.score, longest=longest, vocabulary=vocabulary, form=form
    )
    fitting, found, bad = list(examples), list[TokenSequence](), list[str]()
    try:
        found = encoded(examples)
    except TaskError:  # of the first bad row; the others are looked for one by one
        fitting = []
        for example in examples:
            try:
                own = encoded([example])
            except TaskError as error:
                bad.append(str(error))
                continue
            found += [dataclasses.replace(sequence, owner=len(fitting)) for sequence in own]
            fitting.append(example)
    prompts = tokens_before_answers(found)
    seams = {} if isinstance(form, PairedForm) else seams_of(fitting, prompts, tokenizer)
    if task.score == "generate":
        bad += _not_to_be_written_on_from(task, fitting, prompts, seams, longest=longest)
    before, after = _border(found[0], tokenizer) if found else ((), ())
    return TokenCheck(
        before,
        after,
        Lengths.of([sequence.first_scored for sequence in found]) if found else None,
        Lengths.of([len(sequence.ids) - sequence.first_scored for sequence in found]) if found else None,
        longest,
        tuple(bad),
        tuple(map(str, seams.values())),
    )


def _not_to_be_written_on_from(
    task: Task,
    examples: Sequence[Example],
    prompts: Sequence[tuple[int, ...]],
    seams: Mapping[int, Seam],
    *,
    longest: int,
) -> list[str]:
    """Return what keeps a model from writing on from some prompts, each in a sentence."""
    settings, bad = task.generate or GenerateSettings(), []
    for index, (example, ids) in enumerate(zip(examples, prompts, strict=True)):
        try:
            refuse_too_long(example, len(ids), settings, longest=longest)
            refuse_unlike({index: seams[index]} if index in seams else {}, stops=settings.stop)
        except TaskError as error:
            bad.append(str(error))
    return bad


def _border(sequence: TokenSequence, tokenizer: PreTrainedTokenizerBase) -> tuple[tuple[str, ...], tuple[str, ...]]:
    first = sequence.first_scored
    words = tokenizer.convert_ids_to_tokens(list(sequence.ids))
    return tuple(words[max(first - AROUND, 0) : first]), tuple(words[first : first + AROUND])
