"""The diary of a choice: every trial goes through the study's queue, is charged to the budget, and told."""

import dataclasses
import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from strop.errors import NotFiniteError, RunError
from strop.progress import Progress
from strop.proving.board import Board
from strop.proving.budget import Budget, BudgetSpentError
from strop.proving.claim import Claim
from strop.proving.guards import Guards
from strop.proving.study import Study
from strop.proving.trials import CandidateSpace, Trial, TrialKey
from strop.proving.turns import Turns
from strop.runs import GuardReading, RunFolder, Stopwatch
from strop.scoring import ClassScorer, Evaluation, Scorer
from strop.statistics import Figures, ObjectiveName

T = TypeVar("T")
BASE, START = "base", "start"
"""The methods of trials without a candidate: the model as it was, and the model with what the run begins with."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Journal:
    """Where one method writes what it does; several may share a study, each with a journal of its own."""

    study: Study
    space: CandidateSpace[Any]
    """Of the method's candidates."""
    stage: str
    """Which part of the run this is; with the method it begins the keys of all trials."""
    progress: Progress
    stopwatch: Stopwatch
    """Runs since the choice began, earlier sittings included."""
    budget: Budget
    guards: Guards
    objective: ObjectiveName = "average"
    """Which accuracy the run maximises."""
    run: RunFolder | None = None
    """The folder whose log is written, where there is one."""
    folder: Path | None = None
    """Where files of the method's own go, the run folder or one in it; of several processes only the first has `run` and writes
    there."""
    basis: str = ""
    """What trials without a candidate are of, where that is not the run's own model and prompts."""
    about: str = ""
    """Begins each line that is told, where several methods share a run."""
    board: Board | None = None
    """Where others see what they may help with; None where nobody may."""

    def say(self, line: str) -> None:
        """Tell a decision to whoever watches, and to the log."""
        line = f"{self.about}: {line}" if self.about else line
        self.progress.note(line)
        if self.run is not None:
            self.run.log(line)

    def key(self, candidate: object, *, round: int, examples: int, split: str = "select") -> TrialKey:
        """Return the key of a candidate's trial in a round."""
        return self.space.key(candidate, stage=self.stage, round=round, split=split, examples=examples)

    def unedited_key(self, *, examples: int, started: bool = False) -> TrialKey:
        """Return the key of a trial without a candidate, the same for every method: of the model as it was, or as begun."""
        return TrialKey(START if started else BASE, self.basis, 0, "select", examples)

    def find(self, key: TrialKey) -> Trial | None:
        """Return a finished trial, or None."""
        return self.study.find(key)

    def candidate(self, trial: Trial) -> Any:
        """Return the candidate of a trial of this method; None where it is of no candidate."""
        return self.space.candidate(trial.key) if trial.key.method == self.space.method else None

    def enqueue(self, keys: Iterable[TrialKey]) -> None:
        """Put trials into the queue in this order; those that are in it already stay."""
        self.study.enqueue(keys)

    def measure(self, key: TrialKey, evaluate: Callable[[], Evaluation], *, begun: bool = False) -> Trial:
        """Return a trial: one that is finished as it is, else claimed, scored, written down and charged.

        Args:
            key: of the trial.
            evaluate: scores the candidate, which is on the model while it runs.
            begun: it ends a unit of work, such as an epoch, that began within the budget, and so is finished.

        Raises:
            NotFiniteError: the model before any candidate has probabilities that are not finite.
            BudgetSpentError: the budget is spent, and the trial has neither begun nor is of a model without a candidate.
            RunError: another process works on the trial.
        """
        known = self.find(key)
        if known is not None:
            return known
        if not begun and key.method not in (BASE, START) and self.is_spent:
            raise BudgetSpentError(f"The budget of {self.budget} is spent.")
        self.enqueue([key])
        claim = self.study.claim([key])
        if claim is None:
            raise RunError(f"Another process works on the trial {key.text}; wait for it, then go on with --resume.")
        with claim:
            return self.finish(claim, evaluate)

    def finish(self, claim: Claim, evaluate: Callable[[], Evaluation]) -> Trial:
        """Score a trial that is held, and write it down.

        Args:
            claim: on the trial.
            evaluate: scores the candidate, which is on the model while it runs.

        Raises:
            NotFiniteError: the model before any candidate has probabilities that are not finite.
        """
        figures = self._figures(claim.key, evaluate)
        trial = Trial.of(claim.key, figures, elapsed_seconds=self.stopwatch.seconds, objective=self.objective)
        claim.finish(trial)
        return trial

    def affordable(self, candidates: Sequence[T]) -> Sequence[T]:
        """Return as many of some candidates, the first ones first, as the budget of evaluations still allows."""
        most = self.budget.evaluations
        return candidates if most is None else candidates[: max(0, most - len(self.study.trials()))]

    def in_turn(
        self,
        keys: Sequence[TrialKey],
        *,
        portion: Callable[[TrialKey], Hashable],
        edits: Sequence[Mapping[str, Any]] = (),
    ) -> Turns:
        """Put trials into the queue, let others help with them, and return what hands them out one by one.

        Args:
            keys: of the trials, which differ in the candidate alone.
            portion: those of one portion are best scored by one worker.
            edits: what is on the model beside what the run begins with, as entries of a recipe.
        """
        if self.board is not None and keys:  # first, so that others begin while the last ones are still written
            limited = self.budget.evaluations is not None
            self.board.post(keys, edits=edits, all_alike=not limited, seconds=self.stopwatch.seconds)
        self.enqueue(keys)
        return Turns(
            self.study,
            keys,
            portion=portion,
            finish=self.finish,
            over=lambda: self.is_spent,
            withdraw=self.board.clear if self.board is not None else None,
            done=self.progress.advance,
        )

    def _figures(self, key: TrialKey, evaluate: Callable[[], Evaluation]) -> Figures:
        """Return what a model scored; a candidate whose probabilities are not finite scores nothing, and is told."""
        try:
            return evaluate().figures
        except NotFiniteError as error:
            if key.method in (BASE, START):
                raise
            self.say(f"refused, for what it makes of the model is no number: {error}")
            return Figures(accuracy=None, loss=math.nan, count=key.examples)

    def measure_without_candidate(self, scorer: Scorer | ClassScorer, *, started: bool = False) -> Trial:
        """Return the trial of the model as it stands, before any candidate, and tell it.

        Args:
            scorer: of all select examples.
            started: what the run begins with is on the model; else it is as it was.
        """
        what = "the recipe to begin with" if started else "no edit"
        self.progress.start(f"scoring {what}", scorer.steps)
        key = self.unedited_key(examples=scorer.example_count, started=started)
        trial = self.measure(key, lambda: scorer.evaluate(progress=self.progress))
        self.say(f"{what}: {describe_trial(trial)}")
        return trial

    @property
    def is_spent(self) -> bool:
        """Whether the budget allows nothing further to begin."""
        return self.budget.is_limited and self.budget.is_spent(
            seconds=self.stopwatch.seconds, evaluations=len(self.study.trials())
        )

    def admits(self, key: TrialKey) -> bool:
        """Return whether no guard speaks against the candidate that is on the model; one that does is told.

        Args:
            key: of the candidate.
        """
        broken = self.guards.broken_by(key)
        if broken is not None:
            self.say(f"refused by the guard on {broken.name}: {_harm_in_words(broken)}")
        return broken is None

    def remember(self, name: str, value: Any) -> None:
        """Keep a value beside the trials, under this method and stage."""
        self.study.remember(f"{self.space.method} {self.stage} {name}", value)

    def recall(self, name: str) -> Any:
        """Return a value kept earlier, or None."""
        return self.study.recall(f"{self.space.method} {self.stage} {name}")

    def tokens_of(self, tokens: Callable[[TrialKey], int]) -> int:
        """Return the tokens all trials of this method, and those without a candidate, have read.

        Args:
            tokens: of one trial.
        """
        own = (self.space.method, BASE, START)
        return sum(tokens(trial.key) for trial in self.study.trials() if trial.key.method in own)


def _harm_in_words(broken: GuardReading) -> str:
    if broken.bound_unit == "nats":
        return f"{broken.edited:.2g} {broken.unit} where {broken.bound:g} are allowed"
    unit = "%" if broken.bound_unit == "share" else broken.bound_unit
    return (
        f"{broken.unit} {broken.base:.4g} -> {broken.edited:.4g}, a harm of {100 * broken.harm:.2f} {unit} where "
        f"{100 * broken.bound:g} is allowed"
    )


def describe_trial(trial: Trial) -> str:
    """Return a trial's figures as a log line ends with them."""
    figures = {} if trial.accuracy is None else {"accuracy": trial.accuracy}
    figures |= {trial.metric[0]: trial.metric[1]} if trial.metric is not None else {}
    figures |= {"macro": trial.macro} if trial.macro is not None else {}
    shown = "".join(f"{name} {value:.4f}, " for name, value in figures.items())
    return f"{shown}loss {trial.loss:.4f} on {trial.key.split}"
