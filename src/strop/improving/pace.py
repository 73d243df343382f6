"""How fast this machine reads a task's examples: measured before anything is planned, and kept up to date while it works."""

import dataclasses
import time

from strop.errors import TaskError
from strop.improving.prompts import scorer_with
from strop.proving import Assignment, rivals, seconds_of_continuations
from strop.scoring import scorer_of, writes

TIMED = 64
"""Select examples that are read for it."""
ASKED = 16
"""Of these, how many are asked with others in the prompt, where the proof does so too."""

REPEATS = 3
"""How often they are read with the clock running: what else the machine does only makes it slower."""

PASSES_OF_GRADIENT = 4.0
"""Passes over an example that a gradient of all singular values takes, the forward one included."""
PASSES_OF_STEP = 3.5
"""Passes over an example that a training step takes, what keeps it to the base included."""

HALF_LIFE = 0.01
"""The share of a budget that it takes, at work that is timed, until what was known before counts for half."""

EXAMPLES, DRIFT, GUARDS, CONTINUATIONS = "examples", "drift", "guards", "continuations"
"""Kinds of work: to read an example, to read what drift is measured on, what other guards read, to let a few texts go on."""


def asked(shots: int) -> str:
    """Return the kind of work of asking an example with others in the prompt, which the base has read already.

    Args:
        shots: how many others.
    """
    return f"asked with {shots}"


def made_ready(shots: int) -> str:
    """Return the kind of work that comes before: to read what all prompts begin with.

    Args:
        shots: how many others are in the prompt.
    """
    return f"made ready to ask with {shots}"


@dataclasses.dataclass(frozen=True)
class Pace:
    """What one example costs on this machine.

    >>> pace = Pace(seconds_per_example=0.01, tokens_per_example=20.0)
    >>> round(pace.seconds_per_token, 5), pace.slowed(2.0).seconds_per_example
    (0.0005, 0.02)
    """

    seconds_per_example: float
    """Of one whole pass, in a batch."""
    tokens_per_example: float
    seconds_to_continue: float = 0.0
    """What it takes until a few texts have gone on; 0 for a model that writes none."""

    @property
    def seconds_per_token(self) -> float:
        """Of one whole pass, in a batch."""
        return self.seconds_per_example / max(self.tokens_per_example, 1.0)

    def slowed(self, factor: float) -> "Pace":
        """Return what it is where all takes so many times as long.

        Args:
            factor: above 1 for a slower machine.
        """
        return dataclasses.replace(
            self,
            seconds_per_example=self.seconds_per_example * factor,
            seconds_to_continue=self.seconds_to_continue * factor,
        )

    @classmethod
    def measured(cls, given: Assignment) -> "Pace":
        """Return what a few select examples take: read once to warm up, and then the least of a few times.

        Args:
            given: the model and the task.

        Raises:
            TaskError: the split is empty, or a row does not fit the model.
        """
        examples = given.task.examples("select", limit=TIMED)
        scorer = scorer_of(given.model, given.tokenizer, given.task, examples, anatomy=given.anatomy)
        scorer.evaluate()
        times = []
        for _ in range(REPEATS):
            started = time.monotonic()
            scorer.evaluate()
            times.append(time.monotonic() - started)
        seconds = max(min(times), 1e-6)
        continuing = seconds_of_continuations(given.model, given.anatomy) if writes(given.model, given.anatomy) else 0.0
        return cls(seconds / len(examples), scorer.tokens / len(examples), continuing)


class Tempo:
    """What each kind of work takes now: as long as it took at first, times how much slower all that was done since has become.

    Work that is done anyway is timed; the longer it took, and the later it was, the more it counts.

    Args:
        pace: as it was measured at first.
        budget_seconds: of the run.

    >>> tempo = Tempo(Pace(0.01, 20.0), budget_seconds=100.0)
    >>> tempo.note(EXAMPLES, 100, 2.0)
    >>> round(tempo.slowness, 2), round(tempo.foresee(EXAMPLES, 100), 2)
    (1.5, 1.5)
    """

    def __init__(self, pace: Pace, *, budget_seconds: float) -> None:
        self.first, self._half_life = pace, HALF_LIFE * budget_seconds
        self._each: dict[str, float] = {
            EXAMPLES: pace.seconds_per_example,
            CONTINUATIONS: pace.seconds_to_continue,
        }
        self._rough: set[str] = set()
        self.slowness = 1.0
        """How many times as long as at first all takes."""

    @property
    def pace(self) -> Pace:
        """What one example costs now."""
        return self.first.slowed(self.slowness)

    def note(self, kind: str, amount: float, seconds: float, *, roughly: bool = False) -> None:
        """Take note of work that was done; the first of a kind tells how much of it there is, and not how fast the machine is.

        Args:
            kind: of the work.
            amount: of it.
            seconds: it took.
            roughly: it was so little that the next of the kind tells anew how much there is.
        """
        each = max(seconds, 1e-9) / amount
        if kind not in self._each or kind in self._rough:
            self._each[kind] = each / self.slowness
            (self._rough.add if roughly else self._rough.discard)(kind)
        elif self._each[kind] > 0:
            foreseen = self.foresee(kind, amount)
            weight = 1 - 0.5 ** (min(seconds, foreseen) / self._half_life)
            self.slowness += weight * (each / self._each[kind] - self.slowness)

    def expect(self, kind: str, examples: float) -> None:
        """Take a kind of work for one that takes as long as some examples, until it has been timed.

        Args:
            kind: of the work.
            examples: how many.
        """
        if kind not in self._each:
            self._each[kind] = examples * self.first.seconds_per_example
            self._rough.add(kind)

    def foresee(self, kind: str, amount: float, *, otherwise: float = 0.0) -> float:
        """Return how many seconds some work will take.

        Args:
            kind: of the work.
            amount: of it.
            otherwise: seconds that one takes at the first pace, where none has been timed.
        """
        return self._each.get(kind, otherwise) * amount * self.slowness

    def time_asking(self, given: Assignment) -> tuple[int, ...]:
        """Ask a few select examples with others in the prompt as the proof will; return how many others there can be.

        Args:
            given: the model and a language model's task.
        """
        possible = []
        for shots in rivals.SHOT_COUNTS:
            if given.task.shots is not None and given.task.shots.count == shots:
                continue
            started = time.monotonic()
            try:
                scorer = scorer_with(given, shots, ASKED)
            except TaskError:  # too few rows, or they do not fit the model
                continue
            ready = time.monotonic()
            scorer.evaluate()
            self.note(made_ready(shots), 1, ready - started, roughly=True)
            self.note(asked(shots), scorer.example_count, time.monotonic() - ready, roughly=True)
            possible.append(shots)
        return tuple(possible)
