"""Who may have a turn in a race, and what it begins from."""

import dataclasses

from strop.improving.contenders import Contender
from strop.improving.entry import Entry
from strop.proving import Assignment

LEAST_OF_A_TURN = 0.25
"""The share of the time it needs with which a contender begins at all."""


@dataclasses.dataclass(frozen=True, eq=False)
class Entrant:
    """Whose turn it may be."""

    contender: Contender
    given: Assignment
    on: Entry | None = None
    """What it builds on, which is in what it is given; None for the model as it is."""

    @property
    def name(self) -> str:
        """Of the contender."""
        return self.contender.name
