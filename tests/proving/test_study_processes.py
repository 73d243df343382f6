"""Several processes on one study: every trial is done once, whoever is killed.

Run as a script this file is their supervisor, which forks.
"""

import collections
import gc
import itertools
import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from tests.fixtures.forked import forked
from tests.fixtures.warm import StartWarm

from strop.proving import CandidateSpace, Study, Trial, TrialKey
from strop.runs import locked

LAYERS: CandidateSpace[int] = CandidateSpace(
    "cut",
    {"layer": optuna.distributions.IntDistribution(0, 999)},
    lambda layer: {"layer": layer},
    lambda settings: settings["layer"],
)
KEYS = [LAYERS.key(layer, stage="search", round=1, split="select", examples=24) for layer in range(80)]
pytestmark = pytest.mark.thorough

RUN = "import runpy, sys; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
KILLS = 12
"""In mid-trial; a whole search is killed twenty times in test_killed.py."""
KILLS_AT_RANDOM = 6
"""While the study is opened, filled, read, written, whatever comes."""
WORKERS = 3


def opened(folder: Path) -> Study:
    return Study(f"sqlite:///{folder / 'study.db'}", name="study", spaces=[LAYERS])


def trial_of(key: TrialKey) -> Trial:
    layer = LAYERS.candidate(key)
    assert layer is not None
    return Trial(key, accuracy=layer % 7 / 7, loss=layer / 3)


def work(study: Study, *, seconds: float, tell: Callable[[TrialKey], object]) -> None:
    """Do all that waits, telling of each trial that is begun."""
    study.enqueue(KEYS)
    while (claim := study.claim()) is not None:
        with claim:
            tell(claim.key)
            time.sleep(seconds)
            claim.finish(trial_of(claim.key))


def resume(folder: Path, tell: Callable[[TrialKey], object]) -> None:
    """Go on with a run as whoever holds its folder does."""
    with locked(folder):
        study = opened(folder)
        study.requeue_abandoned(alone=True)
        work(study, seconds=0.01, tell=tell)


def kill_one(folder: Path, *, trials: int | None) -> None:
    """Begin to work on a run and kill whoever does, by a signal nobody can catch.

    It is hit in the middle of a trial after as many others; or, where that is None, at a moment nobody knows.
    """
    begun, begins = os.pipe()
    count = itertools.count()

    def begin(key: TrialKey) -> None:
        os.write(begins, b".")
        if next(count) == (1 if trials is None else trials):
            time.sleep(600)

    process = forked(lambda: resume(folder, begin))
    os.close(begins)
    if trials is None:
        time.sleep(random.random() / 4)
    else:
        assert all(os.read(begun, 1) for _ in range(trials + 1)), "it ended before"
    os.kill(process, signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == -signal.SIGKILL
    os.close(begun)


def supervise(parent: Path) -> None:
    """Let workers share a study, kill those of another one after the other, and leave a third alone."""
    for folder in (parent / "shared", parent / "killed", parent / "whole"):
        folder.mkdir()
    resume(parent / "whole", str)  # the first, so that all others need not load what it has loaded
    gc.collect()  # it hung up: no connection survives a fork

    def take_part() -> None:
        with (parent / "shared" / f"{os.getpid()}.txt").open("w") as log:
            work(opened(parent / "shared"), seconds=0.0, tell=lambda key: print(key.text, file=log))

    processes = [forked(take_part) for _ in range(WORKERS)]
    assert [os.waitpid(process, 0)[1] for process in processes] == [0] * WORKERS
    for trials in (
        [None] * (KILLS_AT_RANDOM // 2) + [number % 3 for number in range(KILLS)] + [None] * (KILLS_AT_RANDOM // 2)
    ):
        kill_one(parent / "killed", trials=trials)
    resume(parent / "killed", str)


@pytest.fixture(scope="module")
def supervised(warm_python: StartWarm, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of what the supervisor did."""
    folder = tmp_path_factory.mktemp("supervised")
    done = warm_python(RUN, __file__, folder)
    _, err = done.communicate()
    assert done.returncode == 0, err[-4000:]
    return folder


def test_processes_that_open_fill_and_empty_one_study_at_once_do_every_trial_once(supervised: Path) -> None:
    by_worker = [file.read_text().splitlines() for file in (supervised / "shared").glob("*.txt")]
    assert len(by_worker) == WORKERS
    begun = [TrialKey.read(text) for texts in by_worker for text in texts]
    assert collections.Counter(begun) == dict.fromkeys(KEYS, 1)
    assert sum(map(bool, by_worker)) > 1  # more than one of them got something to do
    study = opened(supervised / "shared")
    assert {trial.key: trial for trial in study.trials()} == {key: trial_of(key) for key in KEYS}


def test_workers_killed_in_mid_trial_leave_the_table_of_an_uninterrupted_run(supervised: Path) -> None:
    killed, whole = opened(supervised / "killed"), opened(supervised / "whole")
    assert killed.trials() == whole.trials() == tuple(map(trial_of, KEYS))
    assert killed.unfinished() == ()
    assert killed.requeue_abandoned(alone=True) == ()


def test_of_every_trial_the_killed_workers_began_exactly_one_record_is_finished(supervised: Path) -> None:
    study = optuna.load_study(study_name="study", storage=f"sqlite:///{supervised / 'killed' / 'study.db'}")
    of = optuna.trial.TrialState
    kept = collections.Counter(
        (json.loads(record.user_attrs["key"])["candidate"]["layer"], record.state) for record in study.trials
    )
    assert {layer: count for (layer, state), count in kept.items() if state is of.COMPLETE} == dict.fromkeys(
        range(80), 1
    )
    assert {state for _, state in kept} == {of.COMPLETE, of.FAIL}
    hit = sum(count for (_, state), count in kept.items() if state is of.FAIL)
    assert KILLS <= hit <= KILLS + KILLS_AT_RANDOM


if __name__ == "__main__":
    supervise(Path(sys.argv[1]))
