"""Reading a study in one query: states and keys of its trials, without what only other samplers want.

Optuna's own reading makes an object of every trial that waits, with its parameters and their distributions: a worker that joins a
queue of ten thousand would be busy with that for seconds.
"""

import dataclasses
import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
import sqlalchemy
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial, TrialState

READS = "strop_reads"
"""The execution option of a connection that changes nothing."""

AT_ONCE = 500
"""Records that one query names."""

_BEGUN = tuple(state for state in TrialState if state is not TrialState.WAITING)
_STATES = {state.name: state for state in TrialState}
_TRIALS = models.TrialModel.__table__
_OF_TRIALS = models.TrialUserAttributeModel.__table__
_OF_STUDIES = models.StudyUserAttributeModel.__table__
_HIDDEN_OF_STUDIES = models.StudySystemAttributeModel.__table__


@dataclasses.dataclass(frozen=True)
class Row:
    """A trial's record, as it is in the storage now."""

    trial_id: int
    number: int
    """Its place in the queue, counted from 0."""
    state: TrialState
    attributes: Mapping[str, Any]
    """What Strop keeps of it: its key, who holds it, and what it scored."""


def read_rows(storage: optuna.storages.BaseStorage, study_id: int, *, beyond: int = -1) -> list[Row]:
    """Return records of a study in the order of its queue.

    Args:
        storage: it is kept in.
        study_id: of the study.
        beyond: the id of a trial; only later ones are read.
    """
    if not isinstance(storage, optuna.storages.RDBStorage):
        every = storage.get_all_trials(study_id, deepcopy=False)
        return [_row_of(trial) for trial in every if trial._trial_id > beyond]
    return _read(storage, _TRIALS.c.study_id == study_id, _TRIALS.c.trial_id > beyond)


def read_again(storage: optuna.storages.BaseStorage, trial_ids: Sequence[int]) -> list[Row]:
    """Return records as they are now, in the order of the queue.

    Args:
        storage: they are kept in.
        trial_ids: of the trials.
    """
    if not isinstance(storage, optuna.storages.RDBStorage):
        return [_row_of(storage.get_trial(trial_id)) for trial_id in trial_ids]
    found = []
    for start in range(0, len(trial_ids), AT_ONCE):
        found += _read(storage, _TRIALS.c.trial_id.in_(trial_ids[start : start + AT_ONCE]))
    return found


def read_begun(storage: optuna.storages.BaseStorage, study_id: int, *, beyond: int) -> dict[int, TrialState]:
    """Return the states of records that do not wait, by their places in the queue: a small part of what reading all whole takes.

    Args:
        storage: they are kept in.
        study_id: of the study.
        beyond: the id of a trial; only later ones are read.
    """
    if not isinstance(storage, optuna.storages.RDBStorage):
        every = storage.get_all_trials(study_id, deepcopy=False, states=_BEGUN)
        return {trial.number: trial.state for trial in every if trial._trial_id > beyond}
    name = sqlalchemy.type_coerce(_TRIALS.c.state, sqlalchemy.String)
    query = sqlalchemy.select(_TRIALS.c.number, name).where(
        _TRIALS.c.study_id == study_id, _TRIALS.c.trial_id > beyond, _TRIALS.c.state != TrialState.WAITING
    )
    with storage.engine.connect().execution_options(**{READS: True}) as connection:
        return {number: _STATES[state] for number, state in connection.execute(query)}


def _row_of(trial: FrozenTrial) -> Row:
    return Row(trial._trial_id, trial.number, trial.state, dict(trial.user_attrs))


def _read(storage: optuna.storages.RDBStorage, *wanted: sqlalchemy.ColumnElement[bool]) -> list[Row]:
    query = (
        sqlalchemy.select(
            _TRIALS.c.trial_id, _TRIALS.c.number, _TRIALS.c.state, _OF_TRIALS.c.key, _OF_TRIALS.c.value_json
        )
        .outerjoin(_OF_TRIALS, _OF_TRIALS.c.trial_id == _TRIALS.c.trial_id)
        .where(*wanted)
        .order_by(_TRIALS.c.trial_id)
    )
    with storage.engine.connect().execution_options(**{READS: True}) as connection:
        found = connection.execute(query).all()
    return [
        Row(trial_id, number, state, {key: json.loads(value) for *_, key, value in attributes if key is not None})
        for (trial_id, number, state), attributes in itertools.groupby(found, key=lambda entry: tuple(entry[:3]))
    ]


def read_attribute(storage: optuna.storages.BaseStorage, study_id: int, key: str, *, hidden: bool = False) -> Any:
    """Return one value that is kept beside a study's trials; None where there is none.

    Args:
        storage: it is kept in.
        study_id: of the study.
        key: the value's name.
        hidden: it is not among those that people are shown.
    """
    if not isinstance(storage, optuna.storages.RDBStorage):
        ask = storage.get_study_system_attrs if hidden else storage.get_study_user_attrs
        return ask(study_id).get(key)
    table = _HIDDEN_OF_STUDIES if hidden else _OF_STUDIES
    query = sqlalchemy.select(table.c.value_json).where(table.c.study_id == study_id, table.c.key == key)
    with storage.engine.connect().execution_options(**{READS: True}) as connection:
        found = connection.execute(query).scalar()
    return None if found is None else json.loads(found)
