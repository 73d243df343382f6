"""What a race knows, when its choice is made, of how long the parts of the proof take."""

from strop.improving.improver import Improver
from strop.improving.pace import EXAMPLES


class RaceForesight:
    """Keeps the proof of a race's choice within the budget: fewer test examples and rivals where the machine has become slower.

    Args:
        improver: whose choice is proved, and whose clock is running.
    """

    def __init__(self, improver: Improver) -> None:
        self._improver = improver

    def examples_to_prove(self, most: int) -> int:
        """Return how many test examples there is time for; what is left of it goes to the rivals.

        Args:
            most: that were foreseen.
        """
        reserve = self._improver.reserve
        left = reserve.budget_seconds - self._improver.seconds
        return min(most, reserve.fitting(left, self._improver.chosen_kinds, rivals=False))

    def took_to_prove(self, examples: int, seconds: float) -> None:
        """Take note of how long test examples took the model as it is.

        Args:
            examples: that were read.
            seconds: it took.
        """
        self._improver.reserve.tempo.note(EXAMPLES, examples, seconds)

    def room_for_rival(self, shots: int) -> float:
        """Return how many test examples there is still time to ask with some others in the prompt.

        Args:
            shots: how many others.
        """
        return self._improver.reserve.room_for_rival(shots, seconds=self._improver.seconds)
