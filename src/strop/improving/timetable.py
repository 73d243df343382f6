"""When the rounds of a race are over, and who has a turn in each."""

import dataclasses
from collections.abc import Callable, Mapping

from strop.improving.plan import Round

FEWEST_TURNS = 0.5
"""The share of those in a race that should have a turn at first: a first round without time for them takes that of the next too."""


@dataclasses.dataclass(frozen=True)
class Timetable:
    """The rounds of a race: how much time each has, and how many select examples it judges by.

    Where examples are so long that the first round gives a turn to hardly anyone, it takes the time of the next one too, at as many
    examples as before: a look at more methods is worth more than a longer turn of a few. The best of them are looked at on the
    next one's examples all the same. Later rounds have their own time alone: what has gained is worth more of it then.

    >>> timetable = Timetable((Round(0.5, 0.4), Round(1.0, 0.4)), (50, 100))
    >>> timetable.turns(1, {"a": 30.0, "b": 40.0, "c": 60.0}, lambda number: 40.0 * number)
    (['a', 'b'], 2)
    >>> timetable.turns(1, {"a": 30.0, "b": 10.0, "c": 60.0}, lambda number: 40.0 * number)
    (['a', 'b'], 1)
    """

    rounds: tuple[Round, ...]
    counts: tuple[int, ...]
    """Select examples of each round."""

    def share_until(self, number: int) -> float:
        """Return the share of the time to choose that is over when a round is; all of it for what comes after the last.

        Args:
            number: of the round, from 1.
        """
        return 1.0 if number > len(self.rounds) else sum(own.time for own in self.rounds[:number])

    def data_of(self, number: int) -> float:
        """Return the share of the examples to learn from that a round gives; all of them for what comes after the last.

        Args:
            number: of the round, from 1.
        """
        return self.rounds[min(number, len(self.rounds)) - 1].data

    def turns(
        self, number: int, needed: Mapping[str, float], seconds_until: Callable[[int], float]
    ) -> tuple[list[str], int]:
        """Return who has a turn in a round, the first one in any case, and the last round whose time that takes.

        Of the next rounds the first one takes no more than gives half of them a turn, and none that gives nobody more one.

        Args:
            number: of the round, from 1; one more than there are for what comes after the last.
            needed: the seconds that each needs, by name, in the order of turns.
            seconds_until: returns how long it is until the time of a round is over.
        """
        names, reached = in_time(needed, seconds_until(number)), number
        for through in range(2, len(self.rounds) + 1 if number == 1 else 0):
            if len(names) >= FEWEST_TURNS * len(needed):
                break
            more = in_time(needed, seconds_until(through))
            if len(more) > len(names):
                names, reached = more, through
        return names or [*needed][:1], reached


def in_time(needed: Mapping[str, float], seconds: float) -> list[str]:
    """Return who can have a turn within a time, the first ones first.

    Args:
        needed: the seconds that each needs, by name, in the order of turns.
        seconds: that there are.

    >>> in_time({"a": 5.0, "b": 9.0, "c": 4.0}, 10.0)
    ['a', 'c']
    """
    names: list[str] = []
    for name, own in needed.items():
        if own <= seconds:
            names.append(name)
            seconds -= own
    return names
