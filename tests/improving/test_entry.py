"""What learns on from what was found goes slowly from where it has done half the harm that a guard allows."""

import dataclasses

import pytest
from tests.fixtures.entries import entry

from strop.runs import GuardReading


def drifted(nats: float) -> GuardReading:
    return GuardReading("drift", "nats per token", 0.0, nats, nats, 0.05, "nats")


@pytest.mark.parametrize(("nats", "slowed"), [(0.0, 1.0), (0.02, 1.0), (0.026, 3.0), (0.049, 3.0)])
def test_it_is_slowed_from_half_the_bound_on(nats: float, slowed: float) -> None:
    own = dataclasses.replace(entry("spectrum", 0.1, tokens=8.0), guards=(drifted(nats),))
    assert own.slowed_to_go_on == slowed


def test_what_was_slowed_stays_so_though_it_is_within_the_bound_by_then() -> None:
    own = entry("spectrum", 0.1, tokens=8.0)
    own = dataclasses.replace(own, share=dataclasses.replace(own.share, slowed=3.0), guards=(drifted(0.01),))
    assert own.slowed_to_go_on == 3.0


def test_a_guard_that_allows_nothing_slows_nothing() -> None:
    none = dataclasses.replace(drifted(0.0), bound=0.0)
    assert dataclasses.replace(entry("spectrum", 0.1, tokens=8.0), guards=(none,)).slowed_to_go_on == 1.0
