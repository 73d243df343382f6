"""The diary of a choice: every trial goes through the study's queue, is charged to the budget, and told."""

import dataclasses
import functools
import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from strop.errors import NotFiniteError, RunError
from strop.progress import Progress
from strop.proving.board import Board
from strop.proving.budget import Budget, BudgetSpentError
from strop.proving.claim import Claim
from strop.proving.deadline import Deadline
from strop.proving.guards import Guards
from strop.proving.per_example import PerExample
from strop.proving.study import Study
from strop.proving.trials import CandidateSpace, Trial, TrialKey
from strop.proving.turns import Turns
from strop.runs import GuardReading, RunFolder, Stopwatch
from strop.scoring import ClassScorer, Evaluation, Scorer
from strop.statistics import Figures, ObjectiveName

C = TypeVar("C", bound=Hashable)
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
    begins_with: str = ""
    """What trials of the recipe to begin with are of, where those of one run begin with several."""
    about: str = ""
    """Begins each line that is told, where several methods share a run."""
    below: tuple[Any, ...] = ()
    """Candidates of this run that are on the model beneath whatever is tried."""
    board: Board | None = None
    """Where others see what they may help with; None where nobody may."""
    deadline: Deadline | None = None
    """An end that moves with how fast the machine is, beside the budget's; None for none."""

    def say(self, line: str) -> None:
        """Tell a decision to whoever watches, and to the log."""
        line = f"{self.about}: {line}" if self.about else line
        self.progress.note(line)
        if self.run is not None:
            self.run.log(line)

    def key(self, candidate: Any, *, round: int, examples: int, split: str = "select") -> TrialKey:
        """Return the key of a candidate's trial in a round, on top of what is below; see `keys`."""
        return self.keys([candidate], round=round, examples=examples, split=split)[candidate]

    def keys(self, candidates: Iterable[C], *, round: int, examples: int, split: str = "select") -> dict[C, TrialKey]:
        """Return the keys of candidates' trials in a round, on top of what is below.

        Where the same model was scored already, its edits put on in another order, it is the key of that trial.
        """
        key = functools.partial(self.space.key, stage=self.stage, round=round, split=split, examples=examples)
        own: dict[C, TrialKey] = {candidate: key(candidate, below=self.below) for candidate in candidates}
        if not self.below:
            return own
        orders = {candidate: (key, *key.other_orders()) for candidate, key in own.items()}
        known = self.study.finished([key for keys in orders.values() for key in keys])
        return {
            candidate: next((same for same in keys if same in known), keys[0]) for candidate, keys in orders.items()
        }

    def unedited_key(self, *, examples: int, started: bool = False) -> TrialKey:
        """Return the key of a trial without a candidate, the same for every method: of the model as it was, or as begun."""
        stage = self.begins_with or self.basis if started else self.basis
        return TrialKey(START if started else BASE, stage, 0, "select", examples)

    def find(self, key: TrialKey) -> Trial | None:
        """Return a finished trial, or None."""
        return self.study.find(key)

    def candidate(self, trial: Trial) -> Any:
        """Return the candidate of a trial of this method; None where it is of no candidate."""
        return self.space.candidate(trial.key) if trial.key.method == self.space.method else None

    def enqueue(self, keys: Iterable[TrialKey]) -> None:
        """Put trials into the queue in this order; those that are in it already stay."""
        self.study.enqueue(keys)

    def measure(
        self,
        key: TrialKey,
        evaluate: Callable[[], Evaluation],
        *,
        begun: bool = False,
        evaluations: float = 1.0,
        keep_each: bool = False,
    ) -> Trial:
        """Return a trial: one that is finished as it is, else claimed, scored, written down and charged.

        One that had begun when a run was killed is done again, though the budget is spent by then.

        Args:
            key: of the trial.
            evaluate: scores the candidate, which is on the model while it runs.
            begun: it ends a unit of work, such as an epoch, that began within the budget, and so is finished.
            evaluations: what it is charged, in passes over all examples the choice is made by.
            keep_each: keep what every example scored.

        Raises:
            NotFiniteError: the model before any candidate has probabilities that are not finite.
            BudgetSpentError: the budget is spent, and the trial has neither begun nor is of a model without a candidate.
            RunError: another process works on the trial.
        """
        known = self.find(key)
        if known is not None:
            return known
        free = begun or key.method in (BASE, START) or self.study.was_begun(key)
        if not free and self.is_over_for_trial:
            raise BudgetSpentError(f"The budget of {self.budget} is spent.")
        self.enqueue([key])
        claim = self.study.claim([key])
        if claim is None:
            raise RunError(f"Another process works on the trial {key.text}; wait for it, then go on with --resume.")
        with claim:
            return self.finish(claim, evaluate, evaluations=evaluations, keep_each=keep_each)

    def take_over(self, key: TrialKey, trial: Trial) -> None:
        """Take what another trial of the same edits on the same examples scored, so that it is not scored again.

        Args:
            key: of the trial to have.
            trial: of another key.
        """
        self.enqueue([key])
        claim = self.study.claim([key])
        if claim is not None:
            with claim:
                claim.finish(dataclasses.replace(trial, key=key, evaluations=0.0))

    def finish(
        self, claim: Claim, evaluate: Callable[[], Evaluation], *, evaluations: float = 1.0, keep_each: bool = False
    ) -> Trial:
        """Score a trial that is held, and write it down.

        Args:
            claim: on the trial.
            evaluate: scores the candidate, which is on the model while it runs.
            evaluations: what it costs, in passes over all select examples.
            keep_each: keep what every example scored, so that the trial can be paired with others.

        Raises:
            NotFiniteError: the model before any candidate has probabilities that are not finite.
        """
        began = self.stopwatch.seconds
        evaluation = self._evaluation(claim.key, evaluate)
        if self.deadline is not None:
            self.deadline.took(claim.key, self.stopwatch.seconds - began)
        none = Figures(accuracy=None, loss=math.nan, count=claim.key.examples)
        trial = Trial.of(
            claim.key,
            none if evaluation is None else evaluation.figures,
            elapsed_seconds=self.stopwatch.seconds,
            objective=self.objective,
            evaluations=evaluations,
            each=PerExample.of(evaluation) if keep_each and evaluation is not None else None,
        )
        claim.finish(trial)
        return trial

    def affordable(self, candidates: Sequence[T]) -> Sequence[T]:
        """Return as many of some candidates, the first ones first, as the budget of evaluations still allows."""
        most = self.budget.evaluations
        return candidates if most is None else candidates[: max(0, math.ceil(most - self.evaluations))]

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
            over=lambda: self.is_over_for_trial,
            withdraw=self.board.clear if self.board is not None else None,
            done=self.progress.advance,
        )

    def _evaluation(self, key: TrialKey, evaluate: Callable[[], Evaluation]) -> Evaluation | None:
        """Return what a model scored; a candidate whose probabilities are not finite scores nothing, and is told."""
        try:
            return evaluate()
        except NotFiniteError as error:
            if key.method in (BASE, START):
                raise
            self.say(f"refused, for what it makes of the model is no number: {error}")
            return None

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
        """Whether the budget, or the deadline, allows no further unit of work to begin."""
        return self._is_budget_spent or (self.deadline is not None and self.deadline.is_reached())

    @property
    def is_over_for_trial(self) -> bool:
        """Whether the budget, or the deadline, allows no further trial to begin, which may be less than a unit of work."""
        return self._is_budget_spent or (self.deadline is not None and self.deadline.is_reached_by_trial())

    @property
    def _is_budget_spent(self) -> bool:
        return self.budget.is_limited and self.budget.is_spent(
            seconds=self.stopwatch.seconds, evaluations=self.evaluations
        )

    @property
    def evaluations(self) -> float:
        """What all trials of the study have cost, in passes over all examples the choice is made by."""
        return round(math.fsum(trial.evaluations for trial in self.study.trials()), 9)

    def admits(self, key: TrialKey) -> bool:
        """Return whether no guard speaks against the candidate that is on the model; one that does is told.

        Args:
            key: of the candidate.
        """
        return self.refusal(key) is None

    def refusal(self, key: TrialKey) -> GuardReading | None:
        """Return the guard that speaks against the candidate that is on the model, and tell it; None where none does.

        Args:
            key: of the candidate.
        """
        broken = self.guards.broken_by(key)
        if broken is not None:
            self.say(f"refused by the guard on {broken.name}: {_harm_in_words(broken)}")
        return broken

    def remember(self, name: str, value: Any) -> None:
        """Keep a value beside the trials, under this method and stage, and what is below."""
        self.study.remember(self._named(name), value)

    def once(self, name: str, make: Callable[[], Any]) -> Any:
        """Return what a value was when it was asked for first, so that a resumed run goes the same way.

        Args:
            name: of the value, which JSON can hold.
            make: returns it, where it was never asked for.
        """
        known = self.recall(name)
        if known is None:
            known = make()
            self.remember(name, known)
        return known

    def recall(self, name: str) -> Any:
        """Return a value kept earlier, or None."""
        return self.study.recall(self._named(name))

    def _named(self, name: str) -> str:
        own = f"{self.space.method} {self.stage} {name}"
        if not self.below:
            return own
        below = self.space.key(None, stage=self.stage, round=0, split="select", examples=1, below=self.below)
        return f"{own} of {below.text}"

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
