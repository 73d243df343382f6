"""What a run may spend."""

import dataclasses
import math

from strop.errors import StropError, UsageError


class BudgetSpentError(StropError):
    """A run's budget is spent: whoever chooses stops with the best so far."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Budget:
    """Seconds or evaluations a run may spend, charged where a trial is recorded; without limits by default.

    A trial that has begun is finished, so a run overruns by one unit of work at most. Measuring the choice on test is not
    part of it, but for a race, which leaves room for that.

    Raises:
        UsageError: a limit that is not positive.

    >>> Budget(evaluations=3).is_spent(seconds=100.0, evaluations=2)
    False
    """

    seconds: float | None = None
    """From the run's beginning, sittings added up."""
    evaluations: int | None = None
    """Finished trials; those on a part of the select examples count for that part where methods say so."""

    def __post_init__(self) -> None:
        if self.seconds is not None and not 0 < self.seconds < math.inf:
            raise UsageError(f"A budget of seconds is above 0, not {self.seconds:g}.")
        if self.evaluations is not None and self.evaluations < 1:
            raise UsageError(f"A budget of evaluations is 1 or more, not {self.evaluations}.")

    @property
    def is_limited(self) -> bool:
        """Whether there is a limit at all."""
        return self.seconds is not None or self.evaluations is not None

    def is_spent(self, *, seconds: float, evaluations: float) -> bool:
        """Return whether nothing further may begin.

        Args:
            seconds: spent so far.
            evaluations: finished so far.
        """
        over = self.seconds is not None and seconds >= self.seconds
        return over or (self.evaluations is not None and evaluations >= self.evaluations)

    def exceeds(self, *, seconds: float | None, evaluations: int | None) -> bool:
        """Return whether it allows more than other limits do, and nothing less.

        Args:
            seconds: None for no limit.
            evaluations: None for no limit.

        >>> Budget(evaluations=9).exceeds(seconds=None, evaluations=5)
        True
        """
        own = (math.inf if limit is None else limit for limit in (self.seconds, self.evaluations))
        other = (math.inf if limit is None else limit for limit in (seconds, evaluations))
        pairs = list(zip(own, other, strict=True))
        return all(mine >= theirs for mine, theirs in pairs) and any(mine > theirs for mine, theirs in pairs)

    def __str__(self) -> str:
        limits = []
        if self.seconds is not None:
            limits.append(f"{self.seconds:g} s")
        if self.evaluations is not None:
            limits.append(f"{self.evaluations} evaluation{'' if self.evaluations == 1 else 's'}")
        return " or ".join(limits) or "no limit"
