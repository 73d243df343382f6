"""A search that is killed again and again, by a signal nobody can catch, ends as one that was left alone.

Run as a script this file is its supervisor, which forks.
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
from strop.proving import TrialKey
from strop.runs import locked

pytestmark = pytest.mark.thorough

RUN = "import runpy, sys; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
KILLS = 12
SETTINGS = (
    "--compose", "greedy", "--max-edits", "2", "--layers", "1-2", "--matrix-types", "up,down",
    "--rank-fractions", "0.1,0.5", "--guard", "prose.txt:500%", "--device", "cpu", "--quiet",
)  # fmt: skip


def search(out: str, *more: str) -> None:
    """Run `strop search` in this process."""
    sys.argv = ["strop", "search", "tiny", "--task", "facts.yaml", "--out", out, *SETTINGS, *more]
    try:
        main()
    except SystemExit as end:
        if end.code:
            raise


def going_on(out: str) -> int:
    """Return the id of a process that goes on with a search."""
    return forked(lambda: search(out, "--resume"))


def refused_while_it_runs(out: Path) -> str | None:
    """Return what a second process is told while one that stands still holds the folder, or None if none holds it."""
    try:
        with locked(out):
            return None
    except RunError as error:
        return str(error)


def kill_after(seconds: float, out: Path) -> tuple[bool, str | None]:
    """Begin to go on with a run and kill whoever does after so long; return whether it was hit, and what a second was told."""
    process = going_on(out.name)
    time.sleep(seconds)
    told = None
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, signal.SIGSTOP)
        told = refused_while_it_runs(out)
        os.kill(process, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == -signal.SIGKILL, told


def supervise(parent: Path) -> None:
    """Search once undisturbed, then kill until enough kills have hit; a run that comes to its end gives way to another."""
    os.chdir(parent)
    search("whole")  # in this process, so that no other need load what it has loaded
    gc.collect()  # no connection survives a fork
    began = time.monotonic()
    assert os.waitpid(going_on("alone"), 0)[1] == 0
    seconds = time.monotonic() - began
    chance = random.Random(0)
    told: list[str | None] = []
    runs = (parent / f"killed{number}" for number in range(KILLS))
    out = next(runs)
    while len(told) < KILLS:
        hit, sentence = kill_after(chance.random() * seconds / 2, out)
        if hit:
            told.append(sentence)
        else:
            out = next(runs)
    assert os.waitpid(going_on(out.name), 0)[1] == 0
    (parent / "told.json").write_text(json.dumps(told))


@pytest.fixture(scope="module")
def supervised(warm_python: StartWarm, tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    """The folder of what the supervisor did."""
    folder = tmp_path_factory.mktemp("killed")
    (folder / "tiny").symlink_to(tiny_folder)
    rows = [
        {"prompt": f"The city of {name}{number} is in", "answer": f" {country}"}
        for number in range(12)
        for name, country in (("Lyon", "France"), ("Curitiba", "Brazil"))
    ]
    (folder / "facts.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    (folder / "facts.yaml").write_text("name: facts\ndata: facts.jsonl\nsplits: {select: 0.5, test: 0.5, seed: 0}\n")
    (folder / "prose.txt").write_text("The city of Lyon is in France and the city of Curitiba is in Brazil. " * 3)
    done = warm_python(RUN, __file__, folder, environment={"STROP_CACHE": str(folder / "cache")})
    _, err = done.communicate()
    assert done.returncode == 0, err[-4000:]
    return folder


@pytest.fixture
def killed(supervised: Path) -> list[Path]:
    """The runs that were killed, and came to their end at last."""
    return sorted(supervised.glob("killed*"))


def result_of(run: Path) -> dict[str, Any]:
    content = json.loads((run / "result.json").read_text())
    for name in ("wall_seconds", "peak_rss_bytes"):
        del content["cost"][name]
    return content


def trials_of(run: Path) -> list[Any]:
    storage = f"sqlite:///{run / 'study.db'}"
    (name,) = optuna.study.get_all_study_names(storage)
    return optuna.load_study(study_name=name, storage=storage).trials


def test_many_of_the_killed_had_something_to_go_on_with(killed: list[Path]) -> None:
    resumed = sum((run / "log.txt").read_text().count("resumed on") for run in killed)
    assert resumed > KILLS // 3


def test_killed_searches_leave_the_recipe_of_an_undisturbed_one_byte_for_byte(
    supervised: Path, killed: list[Path]
) -> None:
    whole = supervised / "whole" / "recipe"
    names = sorted(file.name for file in whole.iterdir())
    assert json.loads((whole / "recipe.json").read_text())["interventions"]
    for run in killed:
        assert sorted(file.name for file in (run / "recipe").iterdir()) == names
        for name in names:
            assert (run / "recipe" / name).read_bytes() == (whole / name).read_bytes(), (run, name)


def test_killed_searches_have_the_figures_and_the_files_of_an_undisturbed_one(
    supervised: Path, killed: list[Path]
) -> None:
    whole = supervised / "whole"
    for run in killed:
        assert result_of(run) == result_of(whole), run
        assert {file.name for file in run.iterdir()} == {file.name for file in whole.iterdir()}, run


def test_no_trial_of_a_killed_search_is_finished_twice_and_none_is_missing(
    supervised: Path, killed: list[Path]
) -> None:
    complete = optuna.trial.TrialState.COMPLETE

    def finished(run: Path) -> dict[TrialKey, int]:
        kept = (TrialKey.read(trial.user_attrs["key"]) for trial in trials_of(run) if trial.state is complete)
        return collections.Counter(kept)

    whole = finished(supervised / "whole")
    assert set(whole.values()) == {1}
    for run in killed:
        assert finished(run) == whole, run


def test_a_second_process_is_told_who_works_on_the_folder(supervised: Path) -> None:
    told = [sentence for sentence in json.loads((supervised / "told.json").read_text()) if sentence is not None]
    assert len(told) > KILLS // 3
    for sentence in told:
        assert " is being worked on by " in sentence
        assert sentence.endswith("; wait for it, or choose another --out.")


if __name__ == "__main__":
    supervise(Path(sys.argv[1]))
