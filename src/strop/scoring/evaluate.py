"""Evaluate a model on a task."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from strop.anatomy import Anatomy, Family
from strop.checkpoints import takes_names
from strop.errors import TaskError
from strop.progress import Progress, shown_here
from strop.scoring.class_scorer import ClassScorer
from strop.scoring.evaluation import Evaluation
from strop.scoring.scorer import Scorer
from strop.tasks.examples import Example
from strop.tasks.loading import TaskSource, load_task
from strop.tasks.task import Task


@takes_names
def evaluate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: TaskSource,
    *,
    split: str = "test",
    limit: int | None = None,
    family: Family | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Score a model on one split of a task.

    Sequences are batched by length, padded on the right, and the LM head runs only where a token is scored.

    Args:
        model: a causal language model, or a classifier where the task has labels, with or without a recipe applied;
            its name or folder stands for it and its tokenizer.
        tokenizer: its fast tokenizer; of a classifier of images, its image processor.
        task: a task, or what `load_task` takes.
        split: train, select or test.
        limit: score a random sample of this size.
        family: the spelling of an architecture Strop does not know.
        progress: told of each batch; bars where a person watches, by default.

    Raises:
        TaskError: the split is empty, or a row does not fit the model.
        UsageError: there is no such split, or the model is not of the kind the task is for.
    """
    task = load_task(task)
    anatomy = Anatomy.of(model, family=family)
    examples = task.examples(split, limit=limit)
    scorer = scorer_of(model, tokenizer, task, examples, anatomy=anatomy)
    progress = progress if progress is not None else shown_here()
    progress.start(f"scoring {task.name}/{split}", scorer.steps)
    return scorer.evaluate(progress=progress)


def scorer_of(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    examples: Sequence[Example],
    *,
    anatomy: Anatomy | None = None,
) -> Scorer | ClassScorer:
    """Return what scores examples as their task says: on a language model, or on a classifier.

    Args:
        model: a causal language model, or a classifier where the task has labels.
        tokenizer: its fast tokenizer; of a classifier of images, its image processor.
        task: the examples' task.
        examples: to be scored, in this order.
        anatomy: the model's, where it is at hand.

    Raises:
        TaskError: a row does not fit the model.
        UsageError: there are no examples, or the model is not of the kind the task is for.
    """
    if task.labels is not None:
        return ClassScorer(model, tokenizer, examples, task.labels, anatomy=anatomy)
    return Scorer(model, tokenizer, examples, task.score, generate=task.generate, anatomy=anatomy)


@dataclasses.dataclass(frozen=True)
class ParaphraseRobustness:
    """How the answers hold when the question is put in other words."""

    accuracy: float
    """Share of all paraphrases answered right."""
    consistent: float
    """Share of examples answered right on the prompt and on every paraphrase."""
    count: int
    """How many paraphrases were asked."""


@takes_names
def evaluate_paraphrases(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: TaskSource,
    *,
    split: str = "test",
    limit: int | None = None,
    family: Family | None = None,
    progress: Progress | None = None,
) -> ParaphraseRobustness:
    """Ask each example in all its words (paraphrase robustness: LASER, arXiv 2312.13558, section 5.1).

    Args:
        model: a causal language model.
        tokenizer: its fast tokenizer.
        task: a task with a `paraphrases` column, or what `load_task` takes.
        split: train, select or test.
        limit: ask a random sample of this many examples.
        family: the spelling of an architecture Strop does not know.
        progress: told of each batch; bars where a person watches, by default.

    Raises:
        TaskError: the task has no paraphrases, or is not scored by right and wrong.
    """
    task = load_task(task)
    examples = task.examples(split, limit=limit)
    asked = [len(example.paraphrases) + 1 for example in examples]
    if sum(asked) == len(examples):
        raise TaskError(f"Task {task.name} has no paraphrases; name their column under paraphrases: in the task file.")
    wordings = wordings_of(examples)
    anatomy = Anatomy.of(model, family=family)
    scorer = scorer_of(model, tokenizer, task, wordings, anatomy=anatomy)
    progress = progress if progress is not None else shown_here()
    progress.start(f"scoring paraphrases of {task.name}/{split}", scorer.steps)
    correct = scorer.evaluate(progress=progress).correct
    if correct is None:
        raise TaskError(f"Task {task.name} is scored by loss alone, so no paraphrase is right or wrong.")
    starts = np.cumsum([0, *asked[:-1]])
    own_prompt = np.zeros(len(wordings), dtype=bool)
    own_prompt[starts] = True
    return ParaphraseRobustness(
        accuracy=float(correct[~own_prompt].mean()),
        consistent=float(np.logical_and.reduceat(correct, starts).mean()),
        count=int((~own_prompt).sum()),
    )


def wordings_of(examples: Sequence[Example]) -> list[Example]:
    """Return each example in its own prompt, then in its paraphrases.

    Args:
        examples: to be asked.
    """
    return [
        dataclasses.replace(example, prompt=prompt)
        for example in examples
        for prompt in (example.prompt, *example.paraphrases)
    ]
