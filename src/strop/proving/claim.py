"""A trial that is held: others see that it runs, and hear from whoever holds it."""

import threading
from collections.abc import Callable

from strop.errors import UsageError
from strop.proving.trials import Trial, TrialKey


class Claim:
    """A trial that runs and is held: `with claim: ... claim.finish(trial)`.

    Leaving without having finished it, by an exception too, puts it back where it was in the queue. Whoever is killed leaves
    it to `Study.requeue_abandoned`.

    Args:
        key: of the trial.
        beat: says that the trial is held until told to stop.
        finish: writes what it scored.
        put_back: lets it wait again.
    """

    def __init__(
        self,
        key: TrialKey,
        *,
        beat: Callable[[threading.Event], None],
        finish: Callable[[Trial], None],
        put_back: Callable[[], None],
    ) -> None:
        self.key = key
        """Of the trial."""
        self._finish, self._put_back = finish, put_back
        self._finished = False
        self._stop = threading.Event()
        self._heart = threading.Thread(target=beat, args=(self._stop,), daemon=True)

    def finish(self, trial: Trial) -> None:
        """Write what the trial scored, all of it or nothing.

        It is dropped where the trial was taken to be abandoned meanwhile, for whoever took it over finishes it.

        Args:
            trial: of this key.

        Raises:
            UsageError: it is of another key.
        """
        if trial.key != self.key:
            raise UsageError(f"This claim is on {self.key.text}, and it cannot be finished by {trial.key.text}.")
        self._finish(trial)
        self._finished = True

    def __enter__(self) -> "Claim":
        self._heart.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._heart.join()
        if not self._finished:
            self._put_back()
