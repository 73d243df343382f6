"""A trial's record in the storage, as it was last read."""

import functools

from optuna.trial import TrialState

from strop.errors import RunError
from strop.proving.rows import Row
from strop.proving.trials import Trial, TrialKey


class Record:
    """A record of the storage as it was last read; one that is over never changes."""

    def __init__(self, row: Row) -> None:
        self.trial_id = row.trial_id
        if "key" not in row.attributes:
            raise RunError(
                "The study holds trials of another version of Strop, which this one cannot go on with: choose another --out."
            )
        self.text: str = row.attributes["key"]
        """Of its key."""
        self.finished: Trial | None = None
        self.note(row)

    @functools.cached_property
    def key(self) -> TrialKey:
        """Which trial it is of."""
        return TrialKey.read(self.text)

    def note(self, row: Row) -> None:
        """Take up how it is now."""
        self._state = row.state
        self.worker: str | None = row.attributes.get("worker")
        """Who holds it, or held it last."""
        self._was_held = "worker" in row.attributes
        if row.state is TrialState.COMPLETE and self.finished is None:
            self.finished = Trial.read(self.key, row.attributes["scores"])

    def may_differ(self, state: TrialState) -> bool:
        """Whether it may not be what was read before, where it is in this state now: of one that runs, the holder may be new."""
        return (state is not self._state or state is TrialState.RUNNING) and not self.is_over

    @property
    def waits(self) -> bool:
        """Whether it can be claimed."""
        return self.finished is None and self._state is TrialState.WAITING

    @property
    def runs(self) -> bool:
        """Whether someone holds it."""
        return self.finished is None and self._state is TrialState.RUNNING

    @property
    def begun(self) -> bool:
        """Whether someone held it, and it has no result."""
        return self._was_held and self.finished is None

    @property
    def failed(self) -> bool:
        """Whether it is over without a result: given up, or written twice."""
        return self.is_over and self.finished is None

    @property
    def is_over(self) -> bool:
        """Whether it never changes any more."""
        return self.finished is not None or self._state.is_finished()
