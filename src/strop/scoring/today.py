"""The moment a chat template takes for now: the same all through a run, and through its resume."""

import contextlib
import contextvars
import datetime
import functools
from collections.abc import Iterator

DIRECTIVES = (*(f"%-{letter}" for letter in "dHIjmMSy"), *(f"%{letter}" for letter in "aAbBcdDeFHIjmMnpSTuUwWxXyYzZ"))
"""What a format may hold; the longer ones first."""

WITH_ONE_MOMENT = (
    "{% macro strftime_now(format) %}{% set written = namespace(text=format) %}"
    "{% for directive, own in strop_now.items() %}{% set written.text = written.text.replace(directive, own) %}"
    "{% endfor %}{{ written.text }}{% endmacro %}\n"
)
"""Stands before a chat template that asks for the time; only plain data is handed to one, and no function."""

_SET: contextvars.ContextVar[datetime.datetime | None] = contextvars.ContextVar("strop_today", default=None)


def now() -> datetime.datetime:
    """Return the moment that is set for this context, else the one at which it was first asked for in this process."""
    return _SET.get() or _first_asked()


@functools.cache
def _first_asked() -> datetime.datetime:
    return datetime.datetime.now().replace(microsecond=0)


@contextlib.contextmanager
def dated(moment: datetime.datetime | None) -> Iterator[None]:
    """Let chat templates take a moment for now, for a block in this thread; None leaves it as it is.

    >>> with dated(datetime.datetime(2025, 1, 1)):
    ...     now().year
    2025
    """
    token = _SET.set(moment or _SET.get())
    try:
        yield
    finally:
        _SET.reset(token)


def spelled_out() -> dict[str, str]:
    """Return what each directive of a format stands for now."""
    moment = now()
    return {"%%": "\0", **{directive: moment.strftime(directive) for directive in DIRECTIVES}, "\0": "%"}
