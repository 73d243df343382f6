"""What is written in one transaction: many trials, one that is taken, one that is finished; Optuna reads it as its own."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import optuna
import pytest
import sqlalchemy
from optuna.trial import TrialState

from strop.errors import UsageError
from strop.proving import CandidateSpace, Study, Trial, TrialKey
from strop.proving.writes import append_waiting

CUTS: CandidateSpace[tuple[int, float, str]] = CandidateSpace(
    "cut",
    {
        "layer": optuna.distributions.IntDistribution(0, 999),
        "share": optuna.distributions.FloatDistribution(0.0, 1.0),
        "matrix": optuna.distributions.CategoricalDistribution(["up", "down"]),
    },
    lambda cut: {"layer": cut[0], "share": cut[1], "matrix": cut[2]},
    lambda settings: (settings["layer"], settings["share"], settings["matrix"]),
)
CANDIDATES = [(layer, layer / 1000, "up" if layer % 2 else "down") for layer in range(600)]
KEYS = [CUTS.key(each, stage="search", round=1, split="select", examples=24) for each in CANDIDATES]


@pytest.fixture
def address(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'study.db'}"


def opened(address: str) -> Study:
    return Study(address, name="study", spaces=[CUTS])


@contextmanager
def counted(study: Study) -> Iterator[list[str]]:
    """Collect what begins a transaction that writes."""
    assert study._database is not None
    begun: list[str] = []

    def note(connection: object, cursor: object, statement: str, *more: object) -> None:
        if statement.startswith("BEGIN IMMEDIATE"):
            begun.append(statement)

    sqlalchemy.event.listen(study._database.engine, "before_cursor_execute", note)
    yield begun
    sqlalchemy.event.remove(study._database.engine, "before_cursor_execute", note)


def test_many_trials_are_appended_taken_and_finished_in_one_transaction_each(address: str) -> None:
    study = opened(address)
    with counted(study) as begun:
        study.enqueue(KEYS)
    assert len(begun) == 1
    with counted(study) as begun:
        claim = study.claim()
        assert claim is not None
        claim.finish(Trial(claim.key, accuracy=0.5, loss=1.0))
    assert len(begun) == 2


def test_optuna_reads_them_as_it_reads_its_own(address: str) -> None:
    study = opened(address)
    study.enqueue(KEYS[:3])
    claim = study.claim()
    assert claim is not None
    claim.finish(Trial(claim.key, accuracy=0.5, loss=1.0))
    assert study.claim() is not None
    read = optuna.load_study(study_name="study", storage=address)
    assert [trial.number for trial in read.trials] == [0, 1, 2]
    assert [trial.state for trial in read.trials] == [TrialState.COMPLETE, TrialState.RUNNING, TrialState.WAITING]
    assert [trial.params["cut.matrix"] for trial in read.trials] == ["down", "up", "down"]
    first, second, third = read.trials
    assert read.best_value == first.value == 0.5
    assert first.duration is not None
    assert first.duration.total_seconds() >= 0
    assert second.datetime_start is not None
    assert third.datetime_start is None
    read.enqueue_trial({"cut.layer": 7})  # by somebody else: theirs goes on where ours ended
    assert read.trials[-1].number == 3


def test_several_who_append_at_once_leave_no_gap_and_no_number_twice(address: str) -> None:
    opened(address)
    parts = [KEYS[start::4] for start in range(4)]
    threads = [threading.Thread(target=lambda own=own: opened(address).enqueue(own)) for own in parts]  # type: ignore[misc]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    trials = optuna.load_study(study_name="study", storage=address).trials
    assert [trial.number for trial in trials] == list(range(len(KEYS)))
    assert set(opened(address).unfinished()) == set(KEYS)


def test_a_parameter_of_another_kind_than_the_study_holds_is_refused_and_nothing_is_written(address: str) -> None:
    other: CandidateSpace[str] = CandidateSpace(
        "cut",
        {"matrix": optuna.distributions.CategoricalDistribution(["up", "query"])},
        lambda matrix: {"matrix": matrix},
        lambda settings: settings["matrix"],
    )
    study = opened(address)
    study.enqueue(KEYS[:2])
    study._spaces["cut"] = other
    several = [other.key(matrix, stage="search", round=2, split="select", examples=24) for matrix in ("up", "query")]
    with pytest.raises(UsageError, match="do not fit those the study holds: Cat"):
        study.enqueue(several)
    assert len(study.unfinished()) == 2


def test_one_of_two_who_take_a_trial_gets_it(address: str) -> None:
    one, two = opened(address), opened(address)
    one.enqueue(KEYS[:1])
    two.enqueue(KEYS[:1])  # both have read that it waits
    assert one.unfinished() == two.unfinished() == tuple(KEYS[:1])
    assert one.claim() is not None
    assert two.claim() is None


def test_what_is_finished_elsewhere_stays_as_it_is(address: str) -> None:
    study, other = opened(address), opened(address)
    study.enqueue(KEYS[:1])
    claim = study.claim()
    assert claim is not None
    other.requeue_abandoned(dead_workers=[study.worker])
    again = other.claim()
    assert again is not None
    again.finish(Trial(again.key, accuracy=0.25, loss=2.0))
    claim.finish(Trial(claim.key, accuracy=0.5, loss=1.0))
    assert [trial.accuracy for trial in other.trials()] == [0.25]
    assert study.find(TrialKey.read(KEYS[0].text)) == other.trials()[0]


def test_what_a_killed_process_wrote_twice_is_no_trial_and_nobody_waits_for_it(address: str) -> None:
    study = opened(address)
    study.enqueue(KEYS[:2])
    twice = [
        optuna.trial.create_trial(
            state=TrialState.WAITING,
            params=trial.params,
            distributions=trial.distributions,
            user_attrs=trial.user_attrs,
        )
        for trial in optuna.load_study(study_name="study", storage=address).trials
    ]
    append_waiting(study._storage, study._id, twice)  # and it was killed before it could fail them
    for _ in range(2):
        claim = study.claim(KEYS[:2])
        assert claim is not None
        claim.finish(Trial(claim.key, accuracy=0.5, loss=1.0))
    assert study.claim(KEYS[:2]) is None
    assert study.waiting(KEYS[:2]) == study.unfinished(KEYS[:2]) == ()
    assert study.requeue_abandoned() == ()
    assert len(study.trials()) == 2
    states = [trial.state for trial in optuna.load_study(study_name="study", storage=address).trials]
    assert states == [TrialState.COMPLETE] * 2 + [TrialState.FAIL] * 2
