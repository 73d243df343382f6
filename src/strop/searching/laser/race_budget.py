"""How many may go on in a race, so that its winner is scored on all examples and the held-out measurement still fits."""

import functools

from strop.proving import Assignment, Journal
from strop.searching.laser.plan import SearchPlan
from strop.searching.laser.shares import Shares

HELD_OUT_PASSES = 2
"""Over the test examples: of the model as it was and of the choice; one more of what a run begins with."""


class Means:
    """What a run's budget still allows one race: evaluations, seconds, or both.

    A budget holds the held-out measurement too, two evaluations or the seconds they are likely to take, and what is left is parted
    equally among the edits that may still be added. What was allowed is remembered, so that a run that goes on decides the same.

    Args:
        given: the model and the task.
        plan: the settings.
        journal: with the budget.
        shares: of the select examples.
        number: of the edit that is looked for, from 1.
    """

    def __init__(self, given: Assignment, plan: SearchPlan, journal: Journal, shares: Shares, *, number: int) -> None:
        self._journal, self._shares, self._number = journal, shares, number
        self._races = max(1, (plan.edit_limit or number) - number + 1)
        """This one, and those that may follow."""
        self._passes = HELD_OUT_PASSES + bool(given.start)
        test = given.task.counts.get("test", 0)
        self._test_share = (test if plan.test_limit is None else min(test, plan.test_limit)) / shares.count

    def room(self, place: int, waiting: int) -> int:
        """Return how many of those that wait may be scored on a share, if each later share is to have half of them and one ends.

        Args:
            place: of the share, from 0.
            waiting: how many there are.
        """
        if not self._journal.budget.is_limited:
            return waiting
        name = f"room in race {self._number} on {self._shares.ends[place]} examples within {self._journal.budget}"
        return min(int(self._journal.once(name, lambda: self._fitting(place, waiting))), waiting)

    def _fitting(self, place: int, waiting: int) -> int:
        left = self._left(place)
        return max((count for count in range(1, waiting + 1) if self._cost(count, place) <= left), default=0)

    @property
    def is_over(self) -> bool:
        """Whether so little time is left that whoever leads must be scored on the rest of the examples alone."""
        limit = self._journal.budget.seconds
        if limit is None:
            return False
        return self._journal.stopwatch.seconds >= limit - (self._held_out_passes + 1) * self._seconds_of_pass

    def _cost(self, count: int, place: int) -> float:
        """Return what so many take from a share on, in passes over all select examples, if each share halves them."""
        new = [self._shares.new(later) for later in range(place, len(self._shares.ends))]
        total: int = sum(-(-count // 2**step) * examples for step, examples in enumerate(new))
        return total / self._shares.count

    def _left(self, place: int) -> float:
        """Return how many passes over all select examples this race may still take from a share on."""
        budget, lefts = self._journal.budget, []
        if budget.evaluations is not None:
            lefts.append(budget.evaluations - self._passes - self._journal.evaluations)
        if budget.seconds is not None:
            left = budget.seconds - self._journal.stopwatch.seconds - self._held_out_passes * self._seconds_of_pass
            lefts.append(left / self._seconds_on_share(place))
        return min(lefts) / self._races + 1e-9

    @property
    def _held_out_passes(self) -> float:
        return self._passes * self._test_share

    @functools.cached_property
    def _seconds_of_pass(self) -> float:
        """What one pass over all select examples takes the whole model: a few are read for it."""
        started = self._journal.stopwatch.seconds
        self._shares.scorers[0].evaluate()
        return (self._journal.stopwatch.seconds - started) * self._shares.count / self._shares.ends[0]

    def _seconds_on_share(self, place: int) -> float:
        """Return what a candidate's pass over all select examples takes, by what it took on the share before."""
        before = self._shares.ends[place - 1] if place > 0 else 0
        ends = sorted(
            (trial.elapsed_seconds, trial.evaluations)
            for trial in self._journal.study.trials()
            if trial.key.round == self._number and trial.key.examples == before and trial.key.candidate
        )
        passes = sum(evaluations for _, evaluations in ends[1:])
        seconds = (ends[-1][0] - ends[0][0]) / passes if passes else self._seconds_of_pass
        return max(seconds, 1e-9)
