"""An end of choosing that moves with how fast the machine is, and what still fits before the end of all."""

import math
from typing import Protocol

from strop.proving.trials import TrialKey


class Deadline(Protocol):
    """When a method is to be over, beside its budget: it moves as what is done takes longer or shorter than was foreseen."""

    def is_reached(self) -> bool:
        """Return whether the next unit of work would end behind it, if it takes as long as all since this was last asked."""
        ...

    def is_reached_by_trial(self) -> bool:
        """Return whether the next trial alone would end behind it, if it takes as long as the one before."""
        ...

    def took(self, key: TrialKey, seconds: float) -> None:
        """Take note of how long a trial's examples took to score.

        Args:
            key: of the trial.
            seconds: without what came before and after.
        """
        ...


class Foresight(Protocol):
    """What a run whose budget holds the proof too knows of how long the proof's parts take."""

    def examples_to_prove(self, most: int) -> int:
        """Return how many test examples there is time for, asked before any is read.

        Args:
            most: that were foreseen.
        """
        ...

    def took_to_prove(self, examples: int, seconds: float) -> None:
        """Take note of how long test examples took the model as it is, whole.

        Args:
            examples: that were read.
            seconds: it took.
        """
        ...

    def room_for_rival(self, shots: int) -> float:
        """Return how many test examples there is still time to ask with some others in the prompt.

        Args:
            shots: how many others.
        """
        ...


class Unhurried:
    """A run whose budget does not hold the proof: all of it is done.

    >>> Unhurried().room_for_rival(5)
    inf
    """

    def examples_to_prove(self, most: int) -> int:
        """Return all that were foreseen."""
        return most

    def took_to_prove(self, examples: int, seconds: float) -> None:
        """It makes no difference."""

    def room_for_rival(self, shots: int) -> float:
        """Return that there is no limit, however many others there are."""
        del shots
        return math.inf


UNHURRIED = Unhurried()
