"""Writing what a queue's trials go through, each time in one transaction: many that wait, one that is taken, one that is finished.

Optuna's own way is a transaction for every trial that is appended, and two or three for each that is taken or finished. While
many workers share a database, whoever writes waits for its turn as many times.
"""

import contextlib
import datetime
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import optuna
import sqlalchemy
from optuna.distributions import check_distribution_compatibility, distribution_to_json, json_to_distribution
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial, TrialState

from strop.errors import UsageError

_STUDIES = models.StudyModel.__table__
_TRIALS = models.TrialModel.__table__
_PARAMETERS = models.TrialParamModel.__table__
_ATTRIBUTES = models.TrialUserAttributeModel.__table__
_VALUES = models.TrialValueModel.__table__
_HEARTBEATS = models.TrialHeartbeatModel.__table__

_THIS: sqlalchemy.BindParameter[int] = sqlalchemy.bindparam("this")
_NOW: sqlalchemy.BindParameter[datetime.datetime] = sqlalchemy.bindparam("now")
_NAMED: sqlalchemy.BindParameter[str] = sqlalchemy.bindparam("named")
_OF_THIS = _TRIALS.update().where(_TRIALS.c.trial_id == _THIS)
_RUN = _OF_THIS.where(_TRIALS.c.state == TrialState.WAITING).values(state=TrialState.RUNNING, datetime_start=_NOW)
_COMPLETE = _OF_THIS.where(_TRIALS.c.state.not_in([state for state in TrialState if state.is_finished()])).values(
    state=TrialState.COMPLETE, datetime_complete=_NOW
)
_FORGET = _ATTRIBUTES.delete().where(_ATTRIBUTES.c.trial_id == _THIS, _ATTRIBUTES.c.key == _NAMED)
_FORGET_BEATS = _HEARTBEATS.delete().where(_HEARTBEATS.c.trial_id == _THIS)


def append_waiting(storage: optuna.storages.BaseStorage, study_id: int, waiting: Sequence[FrozenTrial]) -> list[int]:
    """Put trials at the end of a study, in this order, and return their ids; in a database either all are written or none is.

    Args:
        storage: the study is kept in.
        study_id: of the study.
        waiting: the trials, with parameters that are in their distributions, and without values.

    Raises:
        ValueError: a database has a parameter of this name with another kind of distribution in the study.
    """
    if not waiting:
        return []
    if not isinstance(storage, optuna.storages.RDBStorage):
        return [storage.create_new_trial(study_id, trial) for trial in waiting]
    of_study = _TRIALS.c.study_id == study_id
    with storage.engine.begin() as connection:
        # nobody else appends until this is committed, so that numbers have no gap and no trial shares one
        connection.execute(sqlalchemy.select(_STUDIES).where(_STUDIES.c.study_id == study_id).with_for_update())
        first = connection.execute(sqlalchemy.select(sqlalchemy.func.count()).where(of_study)).scalar_one()
        parameters = _parameters(waiting)
        _refuse_other_kinds(connection, study_id, parameters)
        rows = [
            {"study_id": study_id, "number": first + place, "state": trial.state} for place, trial in enumerate(waiting)
        ]
        connection.execute(_TRIALS.insert(), rows)
        written = sqlalchemy.select(_TRIALS.c.trial_id).where(of_study, _TRIALS.c.number >= first)
        ids = list(connection.execute(written.order_by(_TRIALS.c.number)).scalars())
        if parameters:
            connection.execute(_PARAMETERS.insert(), [{**row, "trial_id": ids[place]} for place, row in parameters])
        attributes = [
            {"trial_id": trial_id, "key": key, "value_json": json.dumps(value)}
            for trial_id, trial in zip(ids, waiting, strict=True)
            for key, value in trial.user_attrs.items()
        ]
        if attributes:
            connection.execute(_ATTRIBUTES.insert(), attributes)
    return ids


def take(storage: optuna.storages.BaseStorage, trial_id: int, worker: str) -> bool:
    """Let a trial that waits run and be held by a worker, who is alive just now; return whether it waited.

    Args:
        storage: it is kept in.
        trial_id: of the trial.
        worker: its name.
    """
    if not isinstance(storage, optuna.storages.RDBStorage):
        try:
            taken = storage.set_trial_state_values(trial_id, TrialState.RUNNING)
        except UpdateFinishedTrialError:
            return False
        if taken:
            storage.set_trial_user_attr(trial_id, "worker", worker)
        return taken
    with storage.engine.begin() as connection:  # whoever comes second waits, and finds a trial that runs
        if connection.execute(_RUN, {"this": trial_id, "now": _now()}).rowcount != 1:
            return False
        _keep(connection, trial_id, "worker", worker)
        connection.execute(_FORGET_BEATS, {"this": trial_id})
        connection.execute(_HEARTBEATS.insert(), {"trial_id": trial_id})
    return True


def finish(storage: optuna.storages.BaseStorage, trial_id: int, *, value: float, scores: Mapping[str, Any]) -> bool:
    """Write what a trial scored, all of it or nothing; return whether it was not over already.

    Args:
        storage: it is kept in.
        trial_id: of the trial.
        value: what trials are ordered by; not NaN.
        scores: of the trial, as JSON can hold them.
    """
    if not isinstance(storage, optuna.storages.RDBStorage):
        try:
            storage.set_trial_user_attr(trial_id, "scores", scores)
            return storage.set_trial_state_values(trial_id, TrialState.COMPLETE, [value])
        except UpdateFinishedTrialError:
            return False
    stored, kind = models.TrialValueModel.value_to_stored_repr(value)
    with storage.engine.begin() as connection:
        if connection.execute(_COMPLETE, {"this": trial_id, "now": _now()}).rowcount != 1:
            return False
        _keep(connection, trial_id, "scores", scores)
        connection.execute(
            _VALUES.insert(), {"trial_id": trial_id, "objective": 0, "value": stored, "value_type": kind}
        )
    return True


def _keep(connection: sqlalchemy.Connection, trial_id: int, key: str, value: Any) -> None:
    connection.execute(_FORGET, {"this": trial_id, "named": key})
    connection.execute(_ATTRIBUTES.insert(), {"trial_id": trial_id, "key": key, "value_json": json.dumps(value)})


def _now() -> datetime.datetime:
    """Return the time as Optuna's tables hold it: UTC, without saying so."""
    return datetime.datetime.now(datetime.UTC).replace(tzinfo=None)


def _parameters(waiting: Sequence[FrozenTrial]) -> list[tuple[int, dict[str, Any]]]:
    """Return the rows of all parameters, each beside the place of its trial."""
    return [
        (
            place,
            {
                "param_name": name,
                "param_value": trial.distributions[name].to_internal_repr(value),
                "distribution_json": distribution_to_json(trial.distributions[name]),
            },
        )
        for place, trial in enumerate(waiting)
        for name, value in trial.params.items()
    ]


def _refuse_other_kinds(
    connection: sqlalchemy.Connection, study_id: int, parameters: Sequence[tuple[int, dict[str, Any]]]
) -> None:
    """Raise ValueError where a study would have two kinds of distribution for one name."""
    known: dict[str, str] = {}
    for name in {row["param_name"] for _, row in parameters}:
        query = (
            sqlalchemy.select(_PARAMETERS.c.distribution_json)
            .join(_TRIALS, _TRIALS.c.trial_id == _PARAMETERS.c.trial_id)
            .where(_TRIALS.c.study_id == study_id, _PARAMETERS.c.param_name == name)
            .limit(1)
        )
        found = connection.execute(query).scalar()
        if found is not None:
            known[name] = found
    for name, text in dict.fromkeys((row["param_name"], row["distribution_json"]) for _, row in parameters):
        before = known.setdefault(name, text)
        if before != text:
            check_distribution_compatibility(json_to_distribution(before), json_to_distribution(text))


@contextlib.contextmanager
def refusing(what: str) -> Iterator[None]:
    """Raise UsageError where Optuna has an objection to what is to be written.

    Args:
        what: is wrong then.
    """
    try:
        yield
    except ValueError as error:
        raise UsageError(f"{what}: {str(error).rstrip('.')}.") from None
