"""What a gain is paid for with: everything else the model says."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from strop.errors import UsageError
from strop.statistics import Drift


@dataclasses.dataclass(frozen=True)
class Continuation:
    """How a text goes on that has nothing to do with the task, word by likeliest word."""

    prompt: str
    """Its last words."""
    base: str
    edited: str


@dataclasses.dataclass(frozen=True)
class Price:
    """How far a choice is from its base on text that has nothing to do with the task.

    Raises:
        UsageError: neither a figure nor why there is none.

    >>> Price(None, reason="a classifier predicts no next token").to_json()["drift"] is None
    True
    """

    drift: Drift | None
    """None where it cannot be measured."""
    continuations: tuple[Continuation, ...] = ()
    """A few texts, gone on with before and after."""
    reason: str = ""
    """Why it cannot be measured."""

    def __post_init__(self) -> None:
        if (self.drift is None) != bool(self.reason):
            raise UsageError("A price has either a figure, or the reason why there is none.")

    def to_json(self) -> dict[str, Any]:
        """Return what a result file holds."""
        if self.drift is None:
            return {"drift": None, "reason": self.reason}
        return {
            "drift": self.drift.to_json(),
            "continuations": [dataclasses.asdict(each) for each in self.continuations],
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Price":
        """Return the price a result file holds.

        Raises:
            KeyError: a figure is missing.
        """
        if content["drift"] is None:
            return cls(None, reason=content["reason"])
        continuations = tuple(Continuation(**each) for each in content.get("continuations", ()))
        return cls(Drift.from_json(content["drift"]), continuations)
