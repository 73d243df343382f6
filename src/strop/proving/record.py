"""A trial's record in the storage, as it was last read."""

from optuna.trial import FrozenTrial, TrialState

from strop.errors import RunError
from strop.proving.trials import Trial, TrialKey


class Record:
    """A record of the storage as it was last read; one that is over never changes."""

    def __init__(self, kept: FrozenTrial) -> None:
        self.trial_id = kept._trial_id
        if "key" not in kept.user_attrs:
            raise RunError(
                "The study holds trials of another version of Strop, which this one cannot go on with: choose another --out."
            )
        self.key = TrialKey.read(kept.user_attrs["key"])
        self.finished: Trial | None = None
        self.note(kept)

    def note(self, kept: FrozenTrial) -> None:
        """Take up how it is now."""
        self.kept = kept
        if kept.state is TrialState.COMPLETE and self.finished is None:
            self.finished = Trial.read(self.key, kept.user_attrs["scores"])

    @property
    def worker(self) -> str | None:
        """Who holds it, or held it last."""
        return self.kept.user_attrs.get("worker")

    @property
    def waits(self) -> bool:
        """Whether it can be claimed."""
        return self.finished is None and self.kept.state is TrialState.WAITING

    @property
    def runs(self) -> bool:
        """Whether someone holds it."""
        return self.finished is None and self.kept.state is TrialState.RUNNING

    @property
    def failed(self) -> bool:
        """Whether it is over without a result: given up, or written twice."""
        return self.is_over and self.finished is None

    @property
    def is_over(self) -> bool:
        """Whether it never changes any more."""
        return self.finished is not None or self.kept.state.is_finished()
