"""A search and its workers, killed at moments nobody knows by a signal nobody can catch, end as a search that was left alone.

Run as a script this file is their supervisor, which forks: `python test_killed_workers.py FOLDER KILLS`.
"""

import collections
import contextlib
import gc
import json
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

import optuna
import pytest
from tests.fixtures.forked import forked
from tests.fixtures.warm import StartWarm

from strop.cli import main
from strop.errors import RunError
from strop.progress import SILENT
from strop.proving import TrialKey
from strop.searching import work

RUN = "import runpy, sys; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
KILLS = 3
"""In the tests: of the search, of a worker, of both."""
SETTINGS = (
    "--strategy", "exhaustive", "--compose", "greedy", "--max-edits", "2", "--layers", "1-2", "--matrix-types", "up,down,value",
    "--rank-fractions", "0.1,0.3,0.5", "--device", "cpu", "--quiet", "--no-rivals",
)  # fmt: skip


def search(out: str, *more: str) -> None:
    """Run `strop search` in this process."""
    sys.argv = ["strop", "search", "tiny", "--task", "facts.yaml", "--out", out, *SETTINGS, *more]
    try:
        main()
    except SystemExit as end:
        if end.code:
            raise


def help_always(out: str) -> None:
    """Help with a run whenever it asks for help."""
    while True:
        with contextlib.suppress(RunError):
            work(out, device="cpu", progress=SILENT)
        time.sleep(0.05)


def killed(process: int) -> bool:
    """Kill a process; return whether it had not ended before."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == -signal.SIGKILL


def supervise(parent: Path, kills: int) -> None:
    """Search once alone, then with two workers, of whom some are killed until enough kills have hit a search that went on."""
    os.chdir(parent)
    search("whole")  # in this process, so that no other need load what it has loaded
    began = time.monotonic()
    gc.collect()  # no connection survives a fork
    assert os.waitpid(forked(lambda: search("alone")), 0)[1] == 0
    seconds = time.monotonic() - began
    chance = random.Random(0)
    hit: list[list[str]] = []
    number = 0
    while len(hit) < kills:
        out = f"killed{number}"
        number += 1
        people = {"search": forked(lambda out=out: search(out, "--resume"))}  # type: ignore[misc]
        people |= {f"worker {which}": forked(lambda out=out: help_always(out)) for which in (1, 2)}  # type: ignore[misc]
        victims = (["search"], ["worker 1"], ["search", "worker 1", "worker 2"])[len(hit) % 3]
        time.sleep(chance.random() * seconds)
        if os.waitpid(people["search"], os.WNOHANG)[0] == 0:
            struck = [name for name in victims if killed(people.pop(name))]
            hit += [struck] if struck else []
            if "search" not in people:
                people["search"] = forked(lambda out=out: search(out, "--resume"))  # type: ignore[misc]
            if "worker 1" not in people:
                people["worker 1"] = forked(lambda out=out: help_always(out))  # type: ignore[misc]
            assert os.waitpid(people["search"], 0)[1] == 0
        for name in ("worker 1", "worker 2"):
            if name in people:
                killed(people[name])
    (parent / "hit.json").write_text(json.dumps(hit))


def make_place(folder: Path, model: Path) -> None:
    """Write what a search needs."""
    (folder / "tiny").symlink_to(model)
    rows = [
        {"prompt": f"The city of {name}{number} is in", "answer": f" {country}"}
        for number in range(12)
        for name, country in (("Lyon", "France"), ("Curitiba", "Brazil"))
    ]
    (folder / "facts.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    (folder / "facts.yaml").write_text("name: facts\ndata: facts.jsonl\nsplits: {select: 0.5, test: 0.5, seed: 0}\n")


@pytest.fixture(scope="module")
def supervised(warm_python: StartWarm, tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    """The folder of what the supervisor did."""
    folder = tmp_path_factory.mktemp("killed")
    make_place(folder, tiny_folder)
    done = warm_python(RUN, __file__, folder, KILLS, environment={"STROP_CACHE": str(folder / "cache")})
    _, err = done.communicate(timeout=600)
    assert done.returncode == 0, err[-4000:]
    return folder


def figures(run: Path) -> dict[str, Any]:
    content = json.loads((run / "result.json").read_text())
    for name in ("wall_seconds", "peak_rss_bytes"):
        del content["cost"][name]
    return dict(content)


def finished(run: Path) -> dict[TrialKey, int]:
    address = f"sqlite:///{run / 'study.db'}"
    (name,) = optuna.study.get_all_study_names(address)
    trials = optuna.load_study(study_name=name, storage=address).get_trials(states=[optuna.trial.TrialState.COMPLETE])
    return collections.Counter(TrialKey.read(trial.user_attrs["key"]) for trial in trials)


def refuse_differences(parent: Path) -> int:
    """Make sure that all runs are as the one that was left alone; return how many there are."""
    whole = parent / "whole"
    assert set(finished(whole).values()) == {1}
    runs = sorted(parent.glob("killed*"))
    for run in [parent / "alone", *runs]:
        assert finished(run) == finished(whole), run
        assert figures(run) == figures(whole), run
        for file in (whole / "recipe").iterdir():
            assert (run / "recipe" / file.name).read_bytes() == file.read_bytes(), run
    return len(runs)


@pytest.mark.thorough
def test_killed_searches_and_workers_leave_what_a_lone_search_leaves(supervised: Path) -> None:
    assert json.loads((supervised / "whole" / "recipe" / "recipe.json").read_text())["interventions"]
    hit = json.loads((supervised / "hit.json").read_text())
    assert len(hit) == KILLS
    assert refuse_differences(supervised) >= 1


if __name__ == "__main__":
    supervise(Path(sys.argv[1]), int(sys.argv[2]))
