"""What scores examples that have others before them in the prompt."""

from collections.abc import Sequence

from strop.proving.assignment import Assignment
from strop.scoring import Scorer
from strop.tasks import Example


def prompted_scorer(given: Assignment, examples: Sequence[Example], *, edited: bool = False) -> Scorer:
    """Return what scores examples whose prompts may begin alike.

    Args:
        given: the model and a language model's task.
        examples: of the task, with or without others before them.
        edited: the model will have edits on it, so that what all prompts begin with is not to be read once without them.

    Raises:
        TaskError: a prompt does not fit the model.
    """
    task = given.task
    return Scorer(
        given.model,
        given.tokenizer,
        examples,
        task.score,
        generate=task.generate,
        anatomy=given.anatomy,
        share_prefix=not edited and any(example.shots for example in examples),
    )
