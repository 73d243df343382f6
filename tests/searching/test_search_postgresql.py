"""A search whose trials live in a PostgreSQL database of a throwaway server."""

import dataclasses
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest

from strop.runs import TrialBook
from strop.searching import SearchPlan, search
from strop.tasks import Task


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


def count_trials(address: str) -> int:
    database = optuna.storages.RDBStorage(address)
    (study,) = database.get_all_studies()
    count = database.get_n_trials(study._study_id)
    database.remove_session()
    database.engine.dispose()
    return count


@pytest.mark.postgresql
def test_a_search_keeps_its_trials_in_postgresql_and_goes_on_from_there(
    server: str,
    answering: Callable[..., Any],
    small_tokenizer: Any,
    task: Task,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plan = SearchPlan(strategy="exhaustive", layers=(1,), rank_fractions=(0.1, 0.5))
    added: list[Any] = []
    real = TrialBook.add

    def interrupted(self: TrialBook, trial: Any) -> None:
        real(self, trial)
        added.append(trial)
        if len(added) == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr(TrialBook, "add", interrupted)
    with pytest.raises(KeyboardInterrupt):
        search(answering(), small_tokenizer, task, plan, out=tmp_path / "run", storage=server)
    assert count_trials(server) == 5
    assert not (tmp_path / "run" / "study.db").exists()
    again = search(answering(), small_tokenizer, task, plan, out=tmp_path / "run", storage=server, resume=True)
    assert len(added) == len(again.trials) == count_trials(server) == 15
    elsewhere = search(answering(), small_tokenizer, task, plan, out=tmp_path / "other")
    assert again.recipe == elsewhere.recipe
    assert [dataclasses.replace(trial, elapsed_seconds=0) for trial in again.trials] == [
        dataclasses.replace(trial, elapsed_seconds=0) for trial in elsewhere.trials
    ]
