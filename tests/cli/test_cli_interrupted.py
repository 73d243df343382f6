"""A search that is killed, interrupted or out of disk: nothing half-written, and it goes on where it was."""

import contextlib
import json
import resource
import signal
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState
from tests.fixtures.warm import WarmProcess

ENOUGH_TRIALS = 5


@pytest.fixture
def slow_search(tiny_folder: Path, facts: Path) -> Callable[[Path], list[object]]:
    """A search of 28 candidates."""
    options = ["--strategy", "exhaustive", "--layers", "1-2", "--rank-fractions", "0.1,0.4"]
    return lambda out: ["search", tiny_folder, "-t", facts, "-o", out, *options]


def count_trials(study: Path) -> int:
    try:
        with sqlite3.connect(f"file:{study}?mode=ro", uri=True, timeout=5) as connection:
            (count,) = connection.execute("SELECT count(*) FROM trials WHERE state = 'COMPLETE'").fetchone()
        connection.close()
    except sqlite3.OperationalError:  # not there yet, or not yet laid out
        return 0
    return int(count)


def wait_for_trials(process: WarmProcess, study: Path) -> None:
    deadline = time.monotonic() + 60
    while count_trials(study) < ENOUGH_TRIALS:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def figures(content: dict[str, Any]) -> Any:
    """Return what must not depend on how often a search was interrupted, losses to the digits that matter."""
    cost = {key: value for key, value in content["cost"].items() if key in ("evaluations", "tokens")}
    kept = {**content, "cost": cost}
    return json.loads(json.dumps(kept), parse_float=lambda text: float(f"{float(text):.5g}"))


@pytest.fixture
def uninterrupted(strop_command: Any, slow_search: Any, tmp_path: Path) -> Callable[[], Any]:
    """The figures of the same search in one go."""

    def run() -> Any:
        outcome = strop_command(*slow_search(tmp_path / "whole"), "--json", "--quiet")
        assert outcome.code == 0
        return figures(outcome.json)

    return run


def assert_no_trial_was_repeated(study: Path, expected: int) -> None:
    found = optuna.load_study(study_name=None, storage=f"sqlite:///{study}").get_trials(states=[TrialState.COMPLETE])
    assert len({trial.user_attrs["key"] for trial in found}) == len(found) == expected


def test_a_search_that_was_killed_goes_on_where_it_was(
    start_strop: Any, strop_command: Any, slow_search: Any, uninterrupted: Any, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    process = start_strop(*slow_search(run), slowly=True)
    wait_for_trials(process, run / "study.db")
    process.kill()
    process.wait()
    before = count_trials(run / "study.db")
    assert not (run / "result.json").exists()
    assert not (run / "recipe").exists()
    resumed = strop_command(*slow_search(run), "--resume", "--json", "--quiet")
    assert resumed.code == 0, resumed.err
    assert ENOUGH_TRIALS <= before < resumed.json["cost"]["evaluations"] - 2
    assert figures(resumed.json) == uninterrupted()
    select_trials = resumed.json["cost"]["evaluations"] - (2 if resumed.json["interventions"] else 1)
    assert_no_trial_was_repeated(run / "study.db", select_trials)
    log = [line.split(" ", 1)[1] for line in (run / "log.txt").read_text().splitlines()]
    assert (log[0], log[-1]) == ("started", "finished")
    assert any(line.startswith("resumed on ") for line in log)


def test_a_search_that_was_interrupted_says_how_to_go_on(
    start_strop: Any, strop_command: Any, slow_search: Any, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    process = start_strop(*slow_search(run), "--quiet", slowly=True)
    wait_for_trials(process, run / "study.db")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate()
    assert (process.returncode, out) == (1, "")
    assert err == f"Error: Interrupted. Finished trials are kept in {run}; repeat the command with --resume to go on.\n"
    assert not (run / "result.json").exists()
    assert count_trials(run / "study.db") >= ENOUGH_TRIALS
    refused = strop_command(*slow_search(run), "--quiet")
    assert refused.code == 1
    assert "holds a run that was interrupted: go on with it by --resume" in refused.err


@pytest.mark.thorough
def test_three_interruptions_in_a_row_lose_nothing(
    start_strop: Any, strop_command: Any, slow_search: Any, uninterrupted: Any, tmp_path: Path
) -> None:
    """The second and the third hit while the first is being handled."""
    run = tmp_path / "run"
    kept = 0
    for seconds in (0.001, 0.02):
        process = start_strop(*slow_search(run), "--quiet", "--resume", slowly=True)
        deadline = time.monotonic() + 60
        while count_trials(run / "study.db") <= kept and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        for _ in range(3):
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGINT)
            time.sleep(seconds)
        process.communicate()
        assert process.returncode != 0
        assert not (run / "result.json").exists()
        assert count_trials(run / "study.db") > kept  # none is lost
        kept = count_trials(run / "study.db")
    for name in (".config.json.abcd1234.partial", ".recipe.abcd1234.partial"):
        (run / name).write_text("half")
    resumed = strop_command(*slow_search(run), "--resume", "--json", "--quiet")
    assert resumed.code == 0, resumed.err
    assert figures(resumed.json) == uninterrupted()
    assert_no_trial_was_repeated(
        run / "study.db", resumed.json["cost"]["evaluations"] - (2 if resumed.json["interventions"] else 1)
    )
    assert not [path for path in run.rglob("*") if path.name.endswith(".partial") or path.name == ".lock"]


@pytest.fixture
def starved_in(start_strop: Any, strop_command: Any) -> dict[str, Callable[..., tuple[int, str, str]]]:
    """Two ways to run a command whose files may have so many bytes at most; each returns code, output and errors."""

    def own(limit: int, *call: object) -> tuple[int, str, str]:
        process = start_strop(*call, most_bytes=limit)
        out, err = process.communicate()
        return process.wait(), out, err

    def this(limit: int, *call: object) -> tuple[int, str, str]:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
        try:
            outcome = strop_command(*call)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        return outcome.code, outcome.out, outcome.err

    return {"its own process": own, "this process": this}


@pytest.mark.first(1)
@pytest.mark.parametrize("what", ["study", "trials", "recipe"])
def test_a_disk_that_fills_up_leaves_nothing_half_written_and_the_search_can_go_on(
    starved_in: Any, strop_command: Any, tiny_folder: Path, facts: Path, quick: list[str], tmp_path: Path, what: str
) -> None:
    run = tmp_path / "run"
    strategy = "exhaustive" if what == "trials" else "gradient"
    call = ["search", tiny_folder, "-t", facts, "-o", run, *quick, "--strategy", strategy, "--quiet"]
    if what == "recipe":  # all is ready but the recipe, which a small limit refuses
        assert strop_command(*call).code == 0
        whole = json.loads((run / "result.json").read_text())
        (run / "result.json").unlink()
        for file in (run / "recipe").iterdir():
            file.unlink()
        (run / "recipe").rmdir()
        limit = (run / "log.txt").stat().st_size + 1000
        starved = [*call, "--resume"]
    else:
        empty_study = 114_688
        limit, starved = empty_study + 2_000 if what == "trials" else empty_study // 2, call

    code, out, err = starved_in["its own process" if what == "trials" else "this process"](limit, *starved)
    assert (code, out) == (1, ""), err
    assert err.startswith("Error: ")
    assert err.count("\n") == 1
    assert "disk" in err
    assert "--resume" in err
    assert not (run / "result.json").exists()
    assert not (run / "recipe").exists()
    assert not list(run.glob(".*.partial"))
    if what == "trials":
        assert count_trials(run / "study.db") > 0
    resumed = strop_command(*call, "--resume", "--json")
    assert resumed.code == 0, resumed.err
    assert (run / "recipe" / "recipe.json").is_file()
    if what == "recipe":
        assert figures(resumed.json) == figures(whole)
