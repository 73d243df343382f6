"""Reading a study in one query: states and keys of its trials, without what only other samplers want.

Optuna's own reading makes an object of every trial that waits, with its parameters and their distributions: a worker that joins a
queue of ten thousand would be busy with that for seconds.
"""

import dataclasses
import itertools
import json
from collections.abc import Mapping
from typing import Any

import optuna
import sqlalchemy
from optuna.storages._rdb import models
from optuna.trial import TrialState

READS = "strop_reads"
"""The execution option of a connection that changes nothing."""

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


def read_rows(
    storage: optuna.storages.BaseStorage, study_id: int, *, beyond: int = -1, only: int | None = None
) -> list[Row]:
    """Return records of a study in the order of its queue.

    Args:
        storage: it is kept in.
        study_id: of the study.
        beyond: the id of a trial; only later ones are read.
        only: the id of the one trial to read.
    """
    if not isinstance(storage, optuna.storages.RDBStorage):
        every = [storage.get_trial(only)] if only is not None else storage.get_all_trials(study_id, deepcopy=False)
        kept = (Row(trial._trial_id, trial.number, trial.state, dict(trial.user_attrs)) for trial in every)
        return [row for row in kept if row.trial_id > beyond]
    wanted = _TRIALS.c.trial_id == only if only is not None else _TRIALS.c.trial_id > beyond
    query = (
        sqlalchemy.select(
            _TRIALS.c.trial_id, _TRIALS.c.number, _TRIALS.c.state, _OF_TRIALS.c.key, _OF_TRIALS.c.value_json
        )
        .outerjoin(_OF_TRIALS, _OF_TRIALS.c.trial_id == _TRIALS.c.trial_id)
        .where(_TRIALS.c.study_id == study_id, wanted)
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
