"""Show which answers an edit changed: what the model says before and after, beside what is right."""

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from strop.errors import UsageError
from strop.scoring.evaluation import Evaluation
from strop.scoring.generation import greedy_continuations
from strop.statistics import ChangedAnswer, ChangedAnswers
from strop.tasks import Example, Task

FEWEST_TOKENS, MOST_TOKENS = 5, 32
"""Of what a model goes on with where answers are compared token by token."""

Edited = Callable[[], contextlib.AbstractContextManager[Any]]


def refuse_changed(task: Task, most: int) -> None:
    """Make sure that changed answers of a task can be shown; it needs no model.

    Args:
        task: whose answers they are.
        most: of each kind to show.

    Raises:
        UsageError: none are to be shown, or no answer of this task is right or wrong.
    """
    if most < 1:
        raise UsageError(f"The number of changed answers to show (--show-changes) is 1 or more, not {most}.")
    if task.score == "perplexity" or (task.labels is not None and not task.labels.names):
        raise UsageError(
            f"Task {task.name} is scored by loss alone, so that no answer becomes right or wrong: leave out --show-changes."
        )


def changed_answers(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
    evaluations: tuple[Evaluation, Evaluation],
    *,
    before: Edited = contextlib.nullcontext,
    after: Edited,
    most: int,
) -> ChangedAnswers:
    """Return examples whose answers became right or wrong, with both answers.

    Where answers are compared token by token, they are what the model goes on with by itself.

    Args:
        model: as it is without an edit.
        tokenizer: the model's.
        examples: that were scored.
        evaluations: of the model before and after, on these examples.
        before: puts on the model what it had on before, for a `with` block; nothing by default.
        after: puts on the model what it had on after.
        most: of each kind to return, the first ones.

    Raises:
        UsageError: no answer is right or wrong.
    """
    first, second = evaluations
    if first.correct is None or second.correct is None:
        raise UsageError("These evaluations are of losses alone, so that no answer became right or wrong.")
    fixed = np.flatnonzero(second.correct & ~first.correct).tolist()
    broken = np.flatnonzero(first.correct & ~second.correct).tolist()
    chosen = [*fixed[:most], *broken[:most]]
    said: list[list[str]] = []
    for evaluation, edited in zip(evaluations, (before, after), strict=True):
        said.append(_said(model, tokenizer, examples, evaluation, chosen, edited))
    told = [
        ChangedAnswer(
            row=examples[index].row,
            prompt=examples[index].prompt,
            wanted=examples[index].answer.strip(),
            before=was.strip(),
            after=now.strip(),
            loss_before=float(first.loss[index]),
            loss_after=float(second.loss[index]),
        )
        for index, was, now in zip(chosen, *said, strict=True)
    ]
    shown = len(fixed[:most])
    return ChangedAnswers(tuple(told[:shown]), tuple(told[shown:]), fixed_count=len(fixed), broken_count=len(broken))


def _said(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
    evaluation: Evaluation,
    chosen: list[int],
    edited: Edited,
) -> list[str]:
    """Return what a model answers to the examples that are chosen."""
    if evaluation.score in ("exact", "first_token") and model.can_generate():
        longest = max((int(evaluation.tokens[index]) for index in chosen), default=0)
        tokens = min(max(longest, FEWEST_TOKENS), MOST_TOKENS)
        with edited():
            return greedy_continuations(model, tokenizer, [examples[index] for index in chosen], tokens=tokens)
    return [spelt_answer(examples[index], evaluation, index) or "" for index in chosen]


def spelt_answer(example: Example, evaluation: Evaluation, index: int) -> str | None:
    """Return what a model answered to an example, as far as its evaluation holds it: a text, or None.

    Args:
        example: that was scored.
        evaluation: of the model on a split.
        index: of the example in it.
    """
    said = evaluation.said[index] if evaluation.said is not None else None
    if isinstance(said, int) and example.choices:
        return example.choices[said - 1]  # places are counted from 1
    if said is None:
        return evaluation.generated[index] if evaluation.generated is not None else None
    return str(said)
