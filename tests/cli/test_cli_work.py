"""`strop work` and `strop search --workers`: on the command line as in Python, and no password in sight."""

import json
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from strop.proving import hiring


def test_a_worker_must_know_where(refused: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STROP_STUDY", raising=False)
    assert refused("work", code=2) == (
        "strop work needs to know which search to help: --study URL, or STROP_STUDY in the environment."
    )
    missing = tmp_path / "study.db"
    assert refused("work", "--study", missing) == (
        f"There is no study at {missing}: give the address of a search's database, its run folder or its study.db."
    )
    monkeypatch.setenv("STROP_STUDY", "postgresql+psycopg://me:s3cret@127.0.0.1:1/db?password=s3cret")
    said = refused("work")
    assert said.startswith("The study postgresql+psycopg://me:***@127.0.0.1:1/db?password=*** cannot be reached: ")
    assert "s3cret" not in said


def test_a_search_with_two_workers_starts_the_other_by_the_same_door(
    strop_command: Any,
    start_strop: Any,
    tiny_folder: Path,
    facts: Path,
    quick: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given: list[Any] = []

    class Warm:
        def __init__(self, command: list[str], *, env: dict[str, str], **_: Any) -> None:
            given.append((command, env))
            monkeypatch.setenv(hiring.STUDY_VARIABLE, env[hiring.STUDY_VARIABLE])
            self._process = start_strop(*command[3:])
            self.poll = self._process.poll
            self.terminate = self.kill = self._process.kill
            self.wait = self._process.wait

    own = types.SimpleNamespace(Popen=Warm, DEVNULL=subprocess.DEVNULL, TimeoutExpired=subprocess.TimeoutExpired)
    monkeypatch.setattr(hiring, "subprocess", own)  # others start processes too
    call = [
        "search",
        tiny_folder,
        "-t",
        facts,
        "--quiet",
        "--json",
        *quick,
        "--device",
        "cpu",
        "--strategy",
        "exhaustive",
    ]
    alone = strop_command(*call, "--out", tmp_path / "alone")
    together = strop_command(*call, "--out", tmp_path / "run", "--workers", "2")
    assert (alone.code, together.code) == (0, 0), together.err
    ((command, environment),) = given
    assert command == [sys.executable, "-m", "strop", "work", "--quiet", "--device", "cpu"]
    assert environment["OMP_NUM_THREADS"] == "1"
    assert environment[hiring.STUDY_VARIABLE].startswith(f"sqlite:///{tmp_path / 'run' / 'study.db'}#search-")
    for name in ("base", "edited", "comparison", "interventions"):
        assert together.json[name] == alone.json[name]
    assert together.json["cost"]["evaluations"] == alone.json["cost"]["evaluations"]
    kept = json.loads((tmp_path / "run" / "config.json").read_text())
    assert "workers" not in json.dumps(kept)  # a run may go on with another number of them


def test_ray_that_is_not_there_is_told(
    strop_command: Any,
    tiny_folder: Path,
    facts: Path,
    quick: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    call = ["search", tiny_folder, "-t", facts, "--quiet", *quick, "--out", tmp_path / "run", "--workers", "2"]
    outcome = strop_command(*call, "--executor", "ray")
    assert (outcome.code, outcome.err) == (
        2,
        "Error: --executor ray needs Ray: pip install 'strop[ray]', or leave the option out.\n",
    )


def test_a_report_of_a_bug_holds_no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    from strop.cli.failure import report

    address = "postgresql://me:s3cret@db.example/studies"
    monkeypatch.setattr("sys.argv", ["strop", "work", "--study", address])
    written = Path(report(ValueError(f"{address} is odd")))
    text = written.read_text()
    written.unlink()
    assert "s3cret" not in text
    assert "postgresql://me:***@db.example/studies is odd" in text
