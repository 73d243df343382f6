"""What is set aside for the proof of a choice, and so when choosing is to be over: both follow how fast the machine is now."""

import dataclasses
from collections.abc import Iterable

from strop.improving.pace import CONTINUATIONS, DRIFT, EXAMPLES, GUARDS, Tempo, asked, made_ready
from strop.improving.prompts import COUNTS
from strop.proving import TrialKey
from strop.proving.journal import BASE, START
from strop.proving.rivals import FEWEST_SAMPLED
from strop.runs import Stopwatch

DRIFT_TOKENS = 4096
"""Tokens of examples that take as long as to read once what drift is measured on, until that has been timed."""
ASKED_EXAMPLES = 2.0
"""Examples that take as long as one with others in the prompt, until that has been timed."""

MOST_TO_PROVE = 1 / 3
"""The share of the budget that the look at test may take: beyond it a sample of the split is measured."""

MARGIN = 0.02
"""The share of a budget that is kept for what is not timed: what is written in the end, and what was foreseen a little wrong."""

TOLERANCE = 0.05
"""By how much a run may exceed its budget where what was found would be lost else."""

WHOLE_PASSES = (BASE, START, "sharpen")
"""Methods whose trials run the whole model over their examples, so that they tell how fast the machine is."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Proof:
    """What the one look at test reads, and what else is measured then."""

    examples: int
    """Of the test split, at most."""
    fewest: int
    """Of these, at least."""
    drift_readings: int = 0
    """How often what drift is measured on is read then, beside what has been read before."""
    continues: bool = False
    """A few texts go on before and after: the model writes."""
    rivals: tuple[int, ...] = ()
    """How many examples there are in the prompts of each rival that is measured."""


class Reserve:
    """The part of a budget that choosing leaves alone.

    Args:
        tempo: of the machine.
        proof: of the choice.
        budget_seconds: all that there is.
    """

    def __init__(self, tempo: Tempo, proof: Proof, *, budget_seconds: float) -> None:
        self.tempo, self.proof, self.budget_seconds = tempo, proof, budget_seconds

    def seconds(self, kinds: Iterable[str] = ()) -> float:
        """Return what is to be set aside now: for a sample, where all test examples would take more than their share.

        Args:
            kinds: of work that reading an example with the choice on may be; the one that takes longest counts.
        """
        kinds = tuple(kinds)
        return self._seconds_on(self.fitting(MOST_TO_PROVE * self.budget_seconds, kinds), kinds)

    def least_seconds(self, kinds: Iterable[str] = ()) -> float:
        """Return what a proof takes at least: of the fewest test examples, and without rivals that are asked.

        Args:
            kinds: of work; see `seconds`.
        """
        return self._seconds_on(min(self.proof.fewest, self.proof.examples), tuple(kinds), rivals=False)

    def fitting(self, seconds: float, kinds: Iterable[str] = (), *, rivals: bool = True) -> int:
        """Return how many test examples a proof can read in some time, or the fewest it must.

        Args:
            seconds: for all of the proof.
            kinds: of work; see `seconds`.
            rivals: they are to be measured too.
        """
        kinds, most, fewest = tuple(kinds), self.proof.examples, min(self.proof.fewest, self.proof.examples)
        while most > fewest and self._seconds_on(most, kinds, rivals=rivals) > seconds:
            most = max(fewest, most * 9 // 10)
        return most

    def ends(self, kinds: Iterable[str] = ()) -> float:
        """Return when choosing is to be over, in seconds from the run's beginning.

        Args:
            kinds: of work; see `seconds`.
        """
        return self.budget_seconds - self.seconds(kinds)

    def longest(self, kinds: Iterable[str], examples: int) -> float:
        """Return how long some examples take, of some kinds of work the one that takes longest.

        Args:
            kinds: without any the model as it is reads them.
            examples: how many.
        """
        return max((self._of_examples(kind, examples) for kind in (*kinds, EXAMPLES)), default=0.0)

    def drift(self, readings: int) -> float:
        """Return how long it takes to read what drift is measured on.

        Args:
            readings: how often.
        """
        guess = DRIFT_TOKENS * self.tempo.first.seconds_per_token
        return self.tempo.foresee(DRIFT, readings, otherwise=guess)

    def room_for_rival(self, shots: int, *, seconds: float) -> float:
        """Return how many test examples there is still time to ask with some others in the prompt.

        Args:
            shots: how many others.
            seconds: that have passed since the run's beginning.
        """
        left = (1 - MARGIN) * self.budget_seconds - seconds - self.tempo.foresee(made_ready(shots), 1)
        return max(left, 0.0) / max(self._of_examples(asked(shots), 1), 1e-9)

    def _seconds_on(self, examples: int, kinds: tuple[str, ...], *, rivals: bool = True) -> float:
        tempo, proof = self.tempo, self.proof
        passes = self._of_examples(EXAMPLES, examples) + self.longest(kinds, examples)
        asking = sum(
            self._of_examples(asked(shots), min(examples, FEWEST_SAMPLED)) + tempo.foresee(made_ready(shots), 1)
            for shots in (proof.rivals if rivals else ())
        )
        told = self.drift(proof.drift_readings) + (tempo.foresee(CONTINUATIONS, 2) if proof.continues else 0.0)
        return passes + asking + told + MARGIN * self.budget_seconds

    def _of_examples(self, kind: str, examples: int) -> float:
        guess = ASKED_EXAMPLES * self.tempo.first.seconds_per_example
        return self.tempo.foresee(kind, examples, otherwise=guess)


PROMPT_KINDS = tuple(asked(count) for count in COUNTS)
"""What reading an example may be with a prompt of those that are tried."""


class Turn:
    """The end of one contender's turn: what is left then is enough to judge and to prove what it may find.

    Args:
        reserve: of the run.
        stopwatch: of the run.
        kinds: of work that reading an example with its proposal on may be.
        leading: the kinds that proving who leads may be.
        plain: the kind of reading an example without a proposal.
        examples: it is judged on.
        drifts: its drift from the base is read too.
    """

    def __init__(
        self,
        reserve: Reserve,
        stopwatch: Stopwatch,
        *,
        kinds: tuple[str, ...],
        leading: tuple[str, ...],
        plain: str,
        examples: int,
        drifts: bool,
    ) -> None:
        self._reserve, self._stopwatch = reserve, stopwatch
        self._kinds, self._leading, self._plain = kinds, leading, plain
        self._examples, self._drifts = examples, drifts
        self._asked_at: float | None = None
        self._reached = False
        self._trial_seconds = reserve.longest(kinds, examples)

    @property
    def judging(self) -> float:
        """Seconds it will take to judge what is found."""
        guarded = self._reserve.tempo.foresee(GUARDS, 1) + (self._reserve.drift(1) if self._drifts else 0.0)
        return self._reserve.longest(self._kinds, self._examples) + guarded

    @property
    def ends(self) -> float:
        """When it is to be over, in seconds from the run's beginning."""
        return self._reserve.ends((*self._kinds, *self._leading)) - self.judging

    def is_reached(self) -> bool:
        """Return whether the next unit of work would end behind it, if it takes as long as the one before."""
        now = self._stopwatch.seconds
        unit = now - self._asked_at if self._asked_at is not None else 0.0
        self._asked_at = now
        self._reached = self._reached or now + unit >= self.ends  # who is told so says later why it ended
        return self._reached

    def is_reached_by_trial(self) -> bool:
        """Return whether the next trial alone would end behind it, if it takes as long as the one before."""
        return self._stopwatch.seconds + self._trial_seconds >= self.ends

    @property
    def can_be_judged(self) -> bool:
        """Whether what was found can be judged and, on the fewest test examples, proved in hardly more than the budget."""
        proof = self._reserve.least_seconds((*self._kinds, *self._leading))
        within = (1 + TOLERANCE) * self._reserve.budget_seconds
        return self._stopwatch.seconds + self.judging + proof <= within

    def took(self, key: TrialKey, seconds: float) -> None:
        """Take note of how long a trial's examples took to score.

        Args:
            key: of the trial.
            seconds: without what came before and after.
        """
        self._trial_seconds = seconds
        if key.method in WHOLE_PASSES:
            self._reserve.tempo.note(self._plain, key.examples, seconds)
        elif key.method == "prompt":
            self._reserve.tempo.note(asked(int(key.candidate["shots"])), key.examples, seconds)
