"""A study in a PostgreSQL database of a throwaway server."""

import collections
import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

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


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The address of a database behind a socket in a folder that is gone afterwards."""
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    initdb = shutil.which("initdb") or (str(found[-1]) if found else None)
    if initdb is None:
        pytest.skip("no PostgreSQL server is installed (initdb is not found)")
    as_owner = []
    folder = Path(tempfile.mkdtemp(prefix="strop-pg-"))
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root
        if shutil.which("runuser") is None or subprocess.run(["id", "postgres"], capture_output=True).returncode:
            shutil.rmtree(folder)
            pytest.skip("PostgreSQL refuses to run as root, and there is no user postgres to run it as")
        as_owner = ["runuser", "-u", "postgres", "--"]
        shutil.chown(folder, "postgres")
    control = [*as_owner, str(Path(initdb).with_name("pg_ctl")), "-D", str(folder / "data"), "-w"]
    options = f"-k {folder} -c listen_addresses='' -c fsync=off"
    run = {"check": True, "capture_output": True, "cwd": folder}
    try:
        make = [*as_owner, initdb, "-D", str(folder / "data"), "-U", "strop", "-A", "trust", "--no-sync"]
        subprocess.run(make, **run)
        started = [*control, "-o", options, "-l", str(folder / "server.log"), "start"]
        subprocess.run(started, check=True, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            yield f"postgresql+psycopg://strop@/postgres?host={folder}"
        finally:
            subprocess.run([*control, "-m", "immediate", "stop"], **run)
    finally:
        shutil.rmtree(folder)


@pytest.mark.postgresql
def test_workers_that_open_fill_and_empty_one_study_at_once_do_every_trial_once(server: str) -> None:
    begun: list[TrialKey] = []
    failed: list[BaseException] = []

    def take_part() -> None:
        try:
            study = Study(server, name="shared", spaces=[LAYERS])
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
    trials = Study(server, name="shared").trials()
    assert {trial.key for trial in trials} == set(KEYS)
    assert len(trials) == len(KEYS)


@pytest.mark.postgresql
def test_trials_of_the_dead_and_the_silent_are_put_back(server: str) -> None:
    def opened(worker: str) -> Study:
        return Study(server, name="left", spaces=[LAYERS], worker=worker, heartbeat_seconds=1, grace_seconds=2)

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
