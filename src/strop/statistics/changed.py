"""Which answers an edit changed: examples that were wrong and are right, and the other way round, with both answers."""

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class ChangedAnswer:
    """One example whose answer became right, or wrong."""

    row: int
    """Of the example in its file."""
    prompt: str
    wanted: str
    """What is right."""
    before: str
    """What was answered before."""
    after: str
    loss_before: float
    """Nats per answer token."""
    loss_after: float


@dataclasses.dataclass(frozen=True)
class ChangedAnswers:
    """Some of the examples that two models answer differently, and how many there are.

    >>> ChangedAnswers((), (), fixed_count=0, broken_count=0).to_json()
    {'fixed': [], 'broken': [], 'fixed_count': 0, 'broken_count': 0}
    """

    fixed: tuple[ChangedAnswer, ...]
    """Wrong before and right after."""
    broken: tuple[ChangedAnswer, ...]
    """Right before and wrong after."""
    fixed_count: int
    """All of them, shown or not."""
    broken_count: int

    def to_json(self) -> dict[str, Any]:
        """Return what a report holds of it."""
        shown = {name: [dataclasses.asdict(own) for own in getattr(self, name)] for name in ("fixed", "broken")}
        return {**shown, "fixed_count": self.fixed_count, "broken_count": self.broken_count}
