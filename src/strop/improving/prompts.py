"""The rival every user has: solved examples in the prompt, as many as select says."""

import dataclasses
import functools

import optuna

from strop.errors import TaskError
from strop.proving import (
    Assignment,
    BudgetSpentError,
    CandidateSpace,
    Choice,
    Journal,
    Trial,
    describe_trial,
    prompted_scorer,
)
from strop.scoring import Scorer

COUNTS = (1, 2, 5, 8)
"""How many train rows are tried before a prompt."""


class PromptChooser:
    """Puts solved train rows before each prompt and leaves the model as it is.

    Args:
        given: the model and the task.
        select_limit: most select examples to choose by.
    """

    def __init__(self, given: Assignment, *, select_limit: int | None) -> None:
        self.given = given
        self._limit = select_limit

    @property
    def space(self) -> CandidateSpace[int]:
        """How its candidates, counts of rows, are kept in a study."""
        return CandidateSpace(
            method="prompt",
            distributions={"shots": optuna.distributions.IntDistribution(1, 10**4)},
            spell=lambda count: {"shots": count},
            read=lambda settings: int(settings["shots"]),
        )

    def choose(self, journal: Journal) -> Choice:
        """Return the count that is best on the select split, 0 where none helps.

        Args:
            journal: where finished trials and decisions are kept.
        """
        own = self.given.task.shots.count if self.given.task.shots is not None else 0
        plain = scorer_with(self.given, own, self._limit)
        unedited = best = journal.measure_without_candidate(plain)
        chosen, tokens = own, plain.tokens
        for count in COUNTS:
            if count == own:
                continue
            try:
                scorer = scorer_with(self.given, count, self._limit)
                trial = self._scored(journal, count, scorer)
            except TaskError as error:  # too few rows, or they do not fit the model
                journal.say(f"{count} in the prompt: {error}")
                break
            except BudgetSpentError as spent:
                journal.say(str(spent))
                break
            tokens += scorer.tokens
            journal.say(f"{count} in the prompt: {describe_trial(trial)}")
            if trial.merit > best.merit:
                best, chosen = trial, count
        return Choice(self.given.start, unedited, best, tokens=tokens, shots=chosen if chosen != own else None)

    def _scored(self, journal: Journal, count: int, scorer: Scorer) -> Trial:
        journal.progress.start(f"asking with {count} solved examples", scorer.steps)
        key = journal.key(count, round=1, examples=scorer.example_count)
        return journal.measure(key, functools.partial(scorer.evaluate, progress=journal.progress))


def scorer_with(given: Assignment, shots: int | None, limit: int | None, *, edited: bool = False) -> Scorer:
    """Return what scores select examples with some solved rows before each.

    Args:
        given: the model and a language model's task.
        shots: how many; None for as many as the task has.
        limit: most examples.
        edited: the model will have edits on it, and so reads the solved rows anew with each example.

    Raises:
        TaskError: there are too few train rows, or a prompt does not fit the model.
    """
    task = given.task if shots is None else given.task.with_shots(shots)
    return prompted_scorer(given, task.examples("select", limit=limit), edited=edited)


def asked_with(given: Assignment, shots: int | None) -> Assignment:
    """Return an assignment whose prompts have some solved rows before them.

    Args:
        given: the model and the task.
        shots: how many; None leaves it as it is.
    """
    return given if shots is None else dataclasses.replace(given, task=given.task.with_shots(shots))
