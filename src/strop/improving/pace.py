"""How fast this machine reads a task's examples, measured before anything is planned, and what follows for a budget."""

import dataclasses
import time

from strop.proving import Assignment
from strop.scoring import scorer_of

TIMED = 64
"""Select examples that are read for it."""

REPEATS = 3
"""How often they are read with the clock running: what else the machine does only makes it slower."""

PASSES_OF_GRADIENT = 4.0
"""Passes over an example that a gradient of all singular values takes, the forward one included."""
PASSES_OF_STEP = 3.5
"""Passes over an example that a training step takes, what keeps it to the base included."""
DRIFT_TOKENS = 2048
"""Read where drift is measured."""


@dataclasses.dataclass(frozen=True)
class Pace:
    """What one example costs on this machine.

    >>> pace = Pace(seconds_per_example=0.01, tokens_per_example=20.0)
    >>> round(pace.seconds_per_token, 5)
    0.0005
    """

    seconds_per_example: float
    """Of one whole pass, in a batch."""
    tokens_per_example: float

    @property
    def seconds_per_token(self) -> float:
        """Of one whole pass, in a batch."""
        return self.seconds_per_example / max(self.tokens_per_example, 1.0)

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
        return cls(seconds / len(examples), scorer.tokens / len(examples))

    def seconds_to_prove(self, examples: int, *, rivals: bool, shots: bool) -> float:
        """Return what the one look at test takes: base and choice, drift with its continuations, and the rivals.

        Args:
            examples: of the test split.
            rivals: they are measured too.
            shots: they have examples in the prompt.
        """
        passes = 2.2 * examples * self.seconds_per_example
        price = 4 * DRIFT_TOKENS * self.seconds_per_token
        asked = 2 * 4 * min(examples, 200) * self.seconds_per_example if rivals and shots else 0.0
        return passes + price + asked
