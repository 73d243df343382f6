"""What belongs to a call is found while the call goes on, by who makes it, and by nobody else."""

import contextvars
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from strop.interventions.calls import Calls

CALLS: Calls[str] = Calls("test_calls")


def during(value: str, inner: Callable[[], Any], *, owner: object = "model") -> Any:
    CALLS.enter(owner, value, sys._getframe())
    try:
        return inner()
    finally:
        CALLS.leave(value)


def latest(owner: object = "model") -> str | None:
    return CALLS.latest(owner)


def test_a_call_within_a_call_is_told_apart_and_gives_way_to_the_outer_one() -> None:
    def outer() -> list[str | None]:
        return [latest(), during("inner", latest), latest()]

    assert [latest(), *during("outer", outer), latest()] == [None, "outer", "inner", "outer", None]


def test_calls_of_other_owners_are_looked_past() -> None:
    found = during("a", lambda: during("b", lambda: (latest(), latest("other"), latest("third")), owner="other"))
    assert found == ("a", "b", None)


@pytest.mark.parametrize("failure", [ValueError("half-way"), KeyboardInterrupt()])
def test_a_call_that_was_never_left_ends_with_its_frame(failure: BaseException) -> None:
    def interrupted() -> None:
        CALLS.enter("model", "interrupted", sys._getframe())
        raise failure

    def outer() -> list[str | None]:
        with pytest.raises(type(failure)):
            interrupted()
        return [latest(), during("next", latest), latest()]

    assert during("outer", outer) == ["outer", "next", "outer"]
    assert latest() is None


def test_another_thread_sees_no_call_though_it_was_given_the_context() -> None:
    found: list[str | None] = []

    def outer() -> None:
        context = contextvars.copy_context()
        for target in (lambda: found.append(latest()), lambda: context.run(lambda: found.append(latest()))):
            thread = threading.Thread(target=target)
            thread.start()
            thread.join()
        found.append(latest())

    during("outer", outer)
    assert found == [None, None, "outer"]
