"""The test examples a choice is measured on: all that were foreseen, or as many as there is still time for."""

import dataclasses

from strop.proving.assignment import Assignment
from strop.proving.deadline import Foresight
from strop.proving.journal import Journal
from strop.scoring import ClassScorer, Scorer, scorer_of
from strop.tasks import Example

SETTLED = "held-out examples"
"""Under which name a run keeps how many it reads, where those that were foreseen do not fit."""


@dataclasses.dataclass(frozen=True, eq=False)
class HeldOut:
    """Examples of the test split, and what scores them."""

    given: Assignment
    limit: int | None
    """Most of them; None for all."""
    examples: tuple[Example, ...]
    scorer: Scorer | ClassScorer

    @classmethod
    def of(cls, given: Assignment, limit: int | None) -> "HeldOut":
        """Return the examples of a task, made ready to be scored.

        Args:
            given: the model and the task.
            limit: most examples; None for all.

        Raises:
            TaskError: a row does not fit the model.
        """
        examples = given.task.examples("test", limit=limit)
        return cls(
            given, limit, examples, scorer_of(given.model, given.tokenizer, given.task, examples, anatomy=given.anatomy)
        )

    def in_time(self, foresight: Foresight, journal: Journal) -> "HeldOut":
        """Return as many of these as there is time for, which is settled once, before any is read.

        Args:
            foresight: of the run.
            journal: of the run, which keeps how many: a sitting that goes on reads the same ones.
        """
        count = len(self.examples)
        fewer = journal.recall(SETTLED)
        if fewer is None:
            fewer = foresight.examples_to_prove(count)
            if fewer < count:
                journal.say(f"there is time for {fewer} of {count} held-out examples: the first of the sample")
                journal.remember(SETTLED, fewer)
        return self if fewer >= count else HeldOut.of(self.given, fewer)
