"""What belongs to one call that is going on in one thread or task: neither to a model nor to its copies.

A context variable holds it. Hooks enter a forward pass and leave it, and a pass that an interrupt ends is never left: so a
call counts only as long as its frame is on the stack of whoever asks. That keeps it from threads and tasks that were
started with a copy of the context, too.
"""

import contextvars
import dataclasses
import sys
from types import FrameType
from typing import Generic, TypeVar

Value = TypeVar("Value")


@dataclasses.dataclass(frozen=True, eq=False)
class _Call(Generic[Value]):
    owner: object
    value: Value
    frame: FrameType
    outer: "_Call[Value] | None"


class Calls(Generic[Value]):
    """The calls of one kind that are going on, each with a value; calls within calls are told apart.

    Args:
        name: of the context variable.
    """

    def __init__(self, name: str) -> None:
        self._innermost: contextvars.ContextVar[_Call[Value] | None] = contextvars.ContextVar(name, default=None)

    def enter(self, owner: object, value: Value, frame: FrameType) -> None:
        """Begin a call.

        Args:
            owner: who will ask for it.
            value: what belongs to it.
            frame: of the function it lasts as long as.
        """
        self._innermost.set(_Call(owner, value, frame, self._going_on()))

    def leave(self, value: Value) -> None:
        """End the call a value belongs to, and those within it that were never left."""
        call = self._going_on()
        while call is not None and call.value is not value:
            call = call.outer
        if call is not None:
            self._innermost.set(call.outer)

    def latest(self, owner: object) -> Value | None:
        """Return what belongs to the innermost of an owner's calls; None where there is none."""
        call = self._going_on()
        while call is not None and call.owner is not owner:
            call = call.outer
        return call.value if call is not None else None

    def _going_on(self) -> "_Call[Value] | None":
        call = self._innermost.get()
        while call is not None and not _on_stack(call.frame):
            call = call.outer
        return call


def _on_stack(frame: FrameType) -> bool:
    found: FrameType | None = sys._getframe(1)
    while found is not None and found is not frame:
        found = found.f_back
    return found is not None
