"""The trials of a run as a queue in an Optuna storage: any number of processes may work on it, and none does a trial twice.

A trial's record waits, runs, and is at last finished or failed. The storage changes a state in one step, numbers records
in the order they are written, and lets nobody write to one that is finished or failed. So of the records that share a key
the first that has not failed is the trial, and a second one, which two processes may write at the same moment, never runs.
"""

import contextlib
import functools
import json
import threading
import uuid
import warnings
import weakref
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning, OptunaError, UpdateFinishedTrialError
from optuna.trial import TrialState
from sqlalchemy.exc import SQLAlchemyError

from strop.errors import UsageError
from strop.proving.claim import Claim
from strop.proving.record import Record
from strop.proving.rows import Row, read_again, read_attribute, read_begun, read_rows
from strop.proving.storage import fitting_name, hang_up, in_one_sentence, open_database, quiet_optuna
from strop.proving.trials import CandidateSpace, Trial, TrialKey
from strop.proving.workers import is_gone, is_helper
from strop.proving.writes import append_waiting, finish, refusing, take

HEARTBEAT_SECONDS = 20
"""How often whoever holds a trial says so."""

GRACE_SECONDS = 120
"""After how long a silence a trial counts as abandoned."""


class Study:
    """A queue of trials.

    Args:
        storage: an address SQLAlchemy understands (`sqlite:///study.db`, `postgresql://…`); in memory by default.
        name: of the study; whoever opens it by the same name works on the same queue.
        spaces: of the methods whose candidates will be enqueued here.
        worker: a name nobody else working on the study has; drawn by default.
        heartbeat_seconds: how often whoever holds a trial says so.
        grace_seconds: after how long a silence a trial counts as abandoned.

    Raises:
        RunError: the storage cannot be opened; of every method: it cannot be read or written.
        UsageError: two spaces are of the same method.

    >>> from optuna.distributions import IntDistribution
    >>> layers = CandidateSpace(
    ...     "cut", {"layer": IntDistribution(0, 3)}, lambda layer: {"layer": layer}, lambda settings: settings["layer"]
    ... )
    >>> study = Study(None, name="search", spaces=[layers])
    >>> keys = [layers.key(layer, stage="search", round=1, split="select", examples=24) for layer in range(4)]
    >>> study.enqueue(keys)
    >>> while (claim := study.claim(keys)) is not None:
    ...     with claim:
    ...         claim.finish(Trial(claim.key, accuracy=0.5, loss=2.0 - layers.candidate(claim.key)))
    >>> layers.candidate(max(study.trials(), key=lambda trial: trial.merit).key)
    3
    """

    def __init__(
        self,
        storage: str | None,
        *,
        name: str,
        spaces: Sequence[CandidateSpace[Any]] = (),
        worker: str | None = None,
        heartbeat_seconds: int = HEARTBEAT_SECONDS,
        grace_seconds: int = GRACE_SECONDS,
    ) -> None:
        self.worker = worker if worker is not None else uuid.uuid4().hex
        self.name = name
        """Of the study."""
        self.address = storage
        """Of the database it is in; None where it is in memory."""
        self._spaces = {space.method: space for space in spaces}
        if len(self._spaces) < len(spaces):
            raise UsageError(f"Two spaces of a study are of one method: {', '.join(space.method for space in spaces)}.")
        self._heartbeat_seconds = heartbeat_seconds
        self._lock = threading.RLock()
        self._records: list[Record] = []
        self._by_key: dict[str, list[Record]] = {}
        self._open: dict[int, Record] = {}  # those that were not over when they were last looked at, by their places
        with in_one_sentence(storage, "opened", Exception), quiet_optuna():  # drivers raise trees of their own
            self._database = open_database(storage, heartbeat_seconds, grace_seconds) if storage is not None else None
            self._storage = self._database if self._database is not None else optuna.storages.InMemoryStorage()
            self._study = optuna.create_study(
                storage=self._storage, study_name=name, direction="maximize", load_if_exists=True
            )
            self._id = self._storage.get_study_id_from_name(name)
        self._hang_up = weakref.finalize(self, hang_up, self._database) if self._database is not None else None

    def take(self, space: CandidateSpace[Any]) -> None:
        """Let the candidates of another method be enqueued too; a method whose candidates may be already stays as it is.

        Args:
            space: of the method.
        """
        with self._lock:
            self._spaces.setdefault(space.method, space)

    def close(self) -> None:
        """Close its connections; an SQLite file is whole by itself afterwards, without a log beside it."""
        with self._at_work():
            if self._hang_up is not None:
                self._hang_up()

    def release(self) -> None:
        """Let go of what this thread holds of the storage, where the thread ends before the study is closed."""
        if self._database is not None:
            self._database.remove_session()

    def enqueue(self, keys: Iterable[TrialKey]) -> None:
        """Put trials at the end of the queue, in this order; those that wait, run or are finished stay where they are.

        Args:
            keys: of the trials.

        Raises:
            UsageError: a candidate does not fit the space of its method.
        """
        with self._at_work():
            self._read_new()
            new = [
                key for key in dict.fromkeys(keys) if all(record.failed for record in self._by_key.get(key.text, ()))
            ]
            self._add([(key, *self._parameters_of(key)) for key in new])

    def claim(self, keys: Iterable[TrialKey] | None = None) -> Claim | None:
        """Return the next trial that waits, from now on running and held by this worker, or None where none waits.

        Args:
            keys: of the trials to choose from, the first one first; by default the whole queue.
        """
        with self._at_work():
            self._read_new()
            for text in list(self._by_key) if keys is None else [key.text for key in keys]:
                for record in self._by_key.get(text, ()):
                    if not record.failed and self._take(record):
                        return self._claim_of(record)
                    if not record.failed:
                        break  # it runs or is finished; only where it has failed the next record is the trial
        return None

    def _claim_of(self, record: Record) -> Claim:
        return Claim(
            record.key,
            beat=functools.partial(self._beat, record),
            finish=functools.partial(self._finish, record),
            put_back=functools.partial(self._put_back, record),
        )

    def find(self, key: TrialKey) -> Trial | None:
        """Return a finished trial, or None where it is not finished.

        Args:
            key: of the trial.
        """
        with self._at_work():
            self._read_new()
            return record.finished if (record := self._record_of(key.text)) is not None else None

    def was_begun(self, key: TrialKey) -> bool:
        """Return whether someone began a trial that has no result.

        Args:
            key: of the trial.
        """
        with self._at_work():
            self._read_new()
            return any(record.begun for record in self._by_key.get(key.text, ()))

    def trials(self) -> tuple[Trial, ...]:
        """Return all finished trials in the order of the queue."""
        with self._at_work():
            self._read_all()
            every = (record.finished for records in self._by_key.values() for record in records)
            return tuple(trial for trial in every if trial is not None)

    def finished(self, keys: Iterable[TrialKey]) -> dict[TrialKey, Trial]:
        """Return those of some trials that are finished, in this order.

        Args:
            keys: of the trials.
        """
        with self._at_work():
            self._read_all()
            found = ((key, record.finished) for key in keys for record in self._by_key.get(key.text, ()))
            return {key: trial for key, trial in found if trial is not None}

    def unfinished(self, keys: Iterable[TrialKey] | None = None, *, alike: str = "") -> tuple[TrialKey, ...]:
        """Return the trials that wait or run, here or elsewhere, in the order of the queue.

        Args:
            keys: of the trials to look at; by default the whole queue.
            alike: how their keys' texts begin; see `TrialKey.alike`.
        """
        wanted = None if keys is None else {key.text for key in keys}
        with self._at_work():
            self._read_all()
            return tuple(
                records[0].key
                for text, records in self._by_key.items()
                if (text.startswith(alike) if wanted is None else text in wanted)
                and not any(record.finished for record in records)
            )

    def waiting(self, keys: Iterable[TrialKey], *, anew: bool = True) -> tuple[TrialKey, ...]:
        """Return those of some trials that nobody holds yet, in this order.

        Args:
            keys: of the trials to look at.
            anew: as they are now, and not as this study last read them.
        """
        with self._at_work():
            if anew:
                self._read_all()
            each = ((key, self._by_key.get(key.text, ())) for key in keys)
            return tuple(key for key, own in each if next((r.waits for r in own if r.waits or not r.failed), False))

    def requeue_abandoned(self, *, dead_workers: Collection[str] = (), alone: bool = False) -> tuple[TrialKey, ...]:
        """Put trials back whose holder is dead, at once where that is known, else after the grace; return which.

        Args:
            dead_workers: names of workers that are known to be dead.
            alone: nobody else decides, as whoever holds the run folder's lock knows: all others are dead, but for helpers, of
                whom only those are that ended on this machine.
        """
        with self._at_work():
            self._read_all()
            for record in self._records:
                if record.waits and record is not next(self._not_failed(record.text)):
                    self._fail(record)  # whoever wrote it was killed before it could
                if record.runs and (record.worker in dead_workers or self._is_dead(record.worker, alone=alone)):
                    self._fail(record)
            if self._database is not None:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", ExperimentalWarning)
                    optuna.storages.fail_stale_trials(self._study)
            self._read_all()
            lost = [records[0] for records in self._by_key.values() if all(record.failed for record in records)]
            kept = [(record.key, self._storage.get_trial(record.trial_id)) for record in lost]
            self._add([(key, trial.params, trial.distributions) for key, trial in kept])
            return tuple(record.key for record in lost)

    def _is_dead(self, worker: str | None, *, alone: bool) -> bool:
        return is_gone(worker) or (alone and worker != self.worker and not is_helper(worker))

    def remember(self, key: str, value: object, *, hidden: bool = False) -> None:
        """Keep a value beside the trials.

        Args:
            key: its name.
            value: anything JSON can hold.
            hidden: it is not for people who look at the study.

        Raises:
            UsageError: JSON cannot hold it.
        """
        try:
            kept = json.loads(json.dumps(value))  # so that it comes back from memory as it does from a file
        except (TypeError, ValueError) as error:
            raise UsageError(f"A study cannot remember {key!r} as JSON: {error}.") from None
        with self._at_work():
            keep = self._storage.set_study_system_attr if hidden else self._storage.set_study_user_attr
            keep(self._id, fitting_name(key), kept)

    def recall(self, key: str, *, hidden: bool = False) -> Any:
        """Return a value kept earlier, or None.

        Args:
            key: its name.
            hidden: it is not for people who look at the study.
        """
        with self._at_work():
            return read_attribute(self._storage, self._id, fitting_name(key), hidden=hidden)

    @contextlib.contextmanager
    def _at_work(self) -> Iterator[None]:
        with self._lock, in_one_sentence(self.address, "read or written", OptunaError, SQLAlchemyError):
            yield

    def _read_new(self) -> None:
        """Read the records written since."""
        for row in read_rows(self._storage, self._id, beyond=self._records[-1].trial_id if self._records else -1):
            self._note(row)

    def _read_all(self) -> None:
        """Read the records written since, and anew those that waited or ran where that may have changed."""
        for number in [number for number, record in self._open.items() if record.is_over]:
            del self._open[number]
        if self._open:
            first = next(iter(self._open.values())).trial_id
            begun = read_begun(self._storage, self._id, beyond=first - 1)
            now = ((record, begun.get(number, TrialState.WAITING)) for number, record in self._open.items())
            changed = [record.trial_id for record, state in now if record.may_differ(state)]
            for row in read_again(self._storage, changed):
                self._note(row)
        self._read_new()

    def _note(self, row: Row) -> None:
        if row.number < len(self._records):
            self._records[row.number].note(row)
            return
        record = Record(row)
        self._records.append(record)
        self._open[row.number] = record
        self._by_key.setdefault(record.text, []).append(record)

    def _not_failed(self, text: str) -> Iterator[Record]:
        """Yield the records of a key that have not failed: the first is the trial, any other was written at the same moment."""
        return (record for record in self._by_key.get(text, ()) if not record.failed)

    def _refresh(self, record: Record) -> None:
        (row,) = read_again(self._storage, [record.trial_id])
        record.note(row)

    def _record_of(self, text: str) -> Record | None:
        """Return the record that is the trial of a key, as it is now."""
        for record in self._by_key.get(text, ()):
            if not record.is_over:
                self._refresh(record)
            if not record.failed:
                return record
        return None

    def _parameters_of(self, key: TrialKey) -> tuple[dict[str, Any], dict[str, BaseDistribution]]:
        if not key.candidate:
            return {}, {}
        if key.method not in self._spaces:
            raise UsageError(f"The study has no space of the method {key.method}: name it where the study is opened.")
        space = self._spaces[key.method]
        return dict(space.parameters(key)), space.parameter_distributions(key)

    def _add(self, new: Sequence[tuple[TrialKey, Mapping[str, Any], Mapping[str, BaseDistribution]]]) -> None:
        """Write records that wait, and fail those another process has written at the same moment."""
        waiting = []
        for key, params, distributions in new:
            with refusing(f"{dict(key.candidate)} does not fit its space"):
                waiting.append(
                    optuna.trial.create_trial(
                        state=TrialState.WAITING,
                        params=dict(params),
                        distributions=dict(distributions),
                        user_attrs={"key": key.text},
                    )
                )
        with refusing("The candidates do not fit those the study holds"):
            added = set(append_waiting(self._storage, self._id, waiting))
        if added:
            self._read_new()
        for record in self._records if added else ():
            if record.trial_id in added and record is not next(self._not_failed(record.text)):
                self._fail(record)

    def _take(self, record: Record) -> bool:
        """Let a trial that waits run and be held by this worker; return whether it does."""
        if record.runs:  # as it was last read: it may have been put back
            self._refresh(record)
        if not record.waits:
            return False
        taken = take(self._storage, record.trial_id, self.worker)
        if not taken:
            self._refresh(record)
        return taken

    def _fail(self, record: Record) -> None:
        with contextlib.suppress(UpdateFinishedTrialError):
            self._storage.set_trial_state_values(record.trial_id, TrialState.FAIL)
        self._refresh(record)

    def _finish(self, record: Record, trial: Trial) -> None:
        with self._at_work():
            value = trial.merit[1] if trial.metric is None and trial.accuracy is None else trial.merit[0]
            if finish(self._storage, record.trial_id, value=value, scores=trial.scores()):
                record.finished = trial
            else:  # it was taken to be abandoned
                self._refresh(record)

    def _put_back(self, record: Record) -> None:
        with self._at_work(), contextlib.suppress(UpdateFinishedTrialError):
            self._storage.set_trial_user_attr(record.trial_id, "worker", None)
            self._storage.set_trial_state_values(record.trial_id, TrialState.WAITING)

    def _beat(self, record: Record, stop: threading.Event) -> None:
        """Say that a trial is held until told to stop."""
        if self._database is None:
            return
        while not stop.wait(self._heartbeat_seconds):
            with contextlib.suppress(Exception):  # the next beat may get through, or finishing will say what is wrong
                self._database.record_heartbeat(record.trial_id)
        self.release()
