"""What others may help with: whoever decides writes it beside the trials, and helpers read it there."""

import contextlib
import dataclasses
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from strop.proving.study import HEARTBEAT_SECONDS, Study
from strop.proving.trials import TrialKey

ASSIGNMENT, BATCH, LIFE = "strop assignment", "strop batch", "strop life"
"""What is written: what the run is about, which trials may be done now, and that whoever decides is there."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Batch:
    """Trials that may be done now, by anyone and in any order: those in the queue whose keys differ in the candidate alone."""

    number: int
    """Counted up with each batch of a run."""
    alike: str | None
    """How their keys begin; None where nothing is to be done just now."""
    edits: Sequence[Mapping[str, Any]] = ()
    """What is on the model beside what the run begins with, as entries of a recipe."""
    only: Sequence[str] | None = None
    """The keys of those among them that the budget allows; None for all."""
    seconds: float = 0.0
    """From the run's beginning to that of the batch."""
    over: bool = False
    """Nothing is to be done any more."""


class Board:
    """A run's notices to its helpers.

    Args:
        study: of the run; in a database, for nobody else reaches another.
        assignment: what a helper must know before it can help, as JSON can hold it.
    """

    def __init__(self, study: Study, assignment: Mapping[str, Any]) -> None:
        self._study, self._assignment = study, assignment
        last = batch_of(study)
        self._number = last.number if last is not None else 0

    @contextlib.contextmanager
    def held(self) -> Iterator["Board"]:
        """Let helpers come for the length of a block."""
        study = self._study
        study.remember(ASSIGNMENT, self._assignment, hidden=True)
        self.clear()
        stop = threading.Event()
        heart = threading.Thread(target=_live, args=(study, stop), daemon=True)
        heart.start()
        try:
            yield self
        finally:
            stop.set()
            heart.join()
            with contextlib.suppress(Exception):  # what went wrong before is what is to be told
                self.end()

    def post(
        self, keys: Sequence[TrialKey], *, edits: Sequence[Mapping[str, Any]], all_alike: bool, seconds: float
    ) -> None:
        """Let helpers do trials that are in the queue.

        Args:
            keys: of the trials, one or more, which differ in the candidate alone.
            edits: what is on the model beside what the run begins with, as entries of a recipe.
            all_alike: others of the queue whose keys begin as theirs may be done as well.
            seconds: from the run's beginning.
        """
        only = None if all_alike else [key.text for key in keys]
        self._write(keys[0].alike, edits=list(edits), only=only, seconds=seconds)

    def clear(self) -> None:
        """Let helpers begin nothing further for now."""
        self._write(None)

    def end(self) -> None:
        """Let helpers leave."""
        self._write(None, over=True)

    def _write(self, alike: str | None, **more: Any) -> None:
        self._number += 1
        batch = Batch(number=self._number, alike=alike, **more)
        self._study.remember(BATCH, dataclasses.asdict(batch), hidden=True)


def batch_of(study: Study) -> Batch | None:
    """Return what may be done now; None where nobody ever asked for help.

    Args:
        study: of the run.
    """
    kept = study.recall(BATCH, hidden=True)
    return None if kept is None else Batch(**kept)


def waiting_of(study: Study, batch: Batch) -> tuple[TrialKey, ...]:
    """Return those trials of a batch that are not finished, where some of them wait; else nothing.

    Args:
        study: of the run.
        batch: that may be done now.
    """
    if batch.alike is None:
        return ()
    only = None if batch.only is None else [TrialKey.read(text) for text in batch.only]
    unfinished = study.unfinished(only, alike=batch.alike)
    return unfinished if study.waiting(unfinished, anew=False) else ()


def life_of(study: Study) -> object:
    """Return what is another value each time whoever decides has shown that it is there.

    Args:
        study: of the run.
    """
    return study.recall(LIFE, hidden=True)


def _live(study: Study, stop: threading.Event) -> None:
    while True:
        with contextlib.suppress(Exception):  # the next may get through
            study.remember(LIFE, time.time(), hidden=True)
        if stop.wait(HEARTBEAT_SECONDS):
            break
    study.release()
