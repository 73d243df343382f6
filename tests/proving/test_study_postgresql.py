"""A study in a PostgreSQL database of a throwaway server."""

import collections
import threading
import time

import optuna
import pytest

from strop.proving import CandidateSpace, Study, Trial, TrialKey

LAYERS: CandidateSpace[int] = CandidateSpace(
    "cut",
    {"layer": optuna.distributions.IntDistribution(0, 99)},
    lambda layer: {"layer": layer},
    lambda settings: settings["layer"],
)
KEYS = [LAYERS.key(layer, stage="search", round=1, split="select", examples=24) for layer in range(30)]


@pytest.mark.postgresql
def test_workers_that_open_fill_and_empty_one_study_at_once_do_every_trial_once(postgresql: str) -> None:
    begun: list[TrialKey] = []
    failed: list[BaseException] = []

    def take_part() -> None:
        try:
            study = Study(postgresql, name="shared", spaces=[LAYERS])
            study.enqueue(KEYS)
            while (claim := study.claim()) is not None:
                with claim:
                    begun.append(claim.key)
                    claim.finish(Trial(claim.key, accuracy=0.5, loss=1.0))
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=take_part) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert collections.Counter(begun) == dict.fromkeys(KEYS, 1)
    trials = Study(postgresql, name="shared").trials()
    assert {trial.key for trial in trials} == set(KEYS)
    assert len(trials) == len(KEYS)


@pytest.mark.postgresql
def test_trials_of_the_dead_and_the_silent_are_put_back(postgresql: str) -> None:
    def opened(worker: str) -> Study:
        return Study(postgresql, name="left", spaces=[LAYERS], worker=worker, heartbeat_seconds=1, grace_seconds=2)

    opened("first").enqueue(KEYS[:3])
    study = opened("other")
    dead, silent, own = opened("dead").claim(), opened("silent").claim(), study.claim()
    assert dead is not None
    assert silent is not None
    assert own is not None
    with own:
        assert study.requeue_abandoned(dead_workers={"dead"}) == (dead.key,)
        deadline = time.monotonic() + 20
        while not (back := study.requeue_abandoned()) and time.monotonic() < deadline:
            time.sleep(0.2)
        assert back == (silent.key,)
        silent.finish(Trial(silent.key, accuracy=0.0, loss=9.0))  # too late
        own.finish(Trial(own.key, accuracy=0.5, loss=1.0))
    assert study.unfinished() == (dead.key, silent.key)
