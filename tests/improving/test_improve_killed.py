"""A race that is killed again and again, by a signal nobody can catch, chooses what it would have chosen."""

import contextlib
import json
import random
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.fixtures.warm import StartWarm, WarmProcess
from tests.improving.conftest import facts_of

from strop.recipe import Recipe
from strop.runs import Leaderboard

CODE = """
import pytest
from tests.fixtures.few import few_own_texts
few_own_texts(pytest.MonkeyPatch())
from strop.improving.plan import EFFORTS, Effort, Round
raced = ("examples in the prompt", "eigenpruning")
EFFORTS["quick"] = Effort(300.0, 40, (Round(0.5, 0.5), Round(1.0, 0.5)), raced)
from strop.cli import main
main()
"""
SLOWLY = """
import time
from strop.proving.study import Claim
finish = Claim.finish
Claim.finish = lambda claim, trial: (time.sleep(0.05), finish(claim, trial))[1]
"""
"""A trial takes a twentieth of a second or more, so that a signal hits the work it is meant for."""
SETTINGS = (
    "--test-limit", "40", "--guard", "none", "--time-limit", "100h", "--no-rivals", "--device", "cpu", "--quiet", "--json",
)  # fmt: skip
KILLS = 5


@pytest.fixture
def start(spoilt: Callable[[], Any], small_tokenizer: Any, warm_python: StartWarm, tmp_path: Path) -> Any:
    """Start an improvement of a spoilt model in a process of its own, with time for all it may want."""
    spoilt().save_pretrained(tmp_path / "model")
    small_tokenizer.save_pretrained(tmp_path / "model")
    task = {"name": "many-facts", "data": "facts.jsonl", "splits": {"train": 0.3, "select": 0.4, "test": 0.3}}
    (tmp_path / "facts.jsonl").write_text("\n".join(map(json.dumps, facts_of(100))), encoding="utf-8")
    (tmp_path / "facts.yaml").write_text(yaml.safe_dump(task), encoding="utf-8")

    def starting(out: Path, *more: str, slowly: bool = False) -> WarmProcess:
        call = ("improve", tmp_path / "model", "--task", tmp_path / "facts.yaml", "--out", out, *SETTINGS, *more)
        environment = {"STROP_CACHE": str(tmp_path / "cache")}
        return warm_python(SLOWLY + CODE if slowly else CODE, *call, environment=environment)

    return starting


def kept_in(study: Path) -> int:
    """Return how many things a study holds: finished trials, and what is remembered beside them."""
    count = (
        "SELECT (SELECT count(*) FROM trials WHERE state = 'COMPLETE') + (SELECT count(*) FROM study_user_attributes)"
    )
    try:
        with contextlib.closing(sqlite3.connect(f"file:{study}?mode=ro", uri=True, timeout=5)) as connection:
            return int(connection.execute(count).fetchone()[0])
    except sqlite3.OperationalError:  # not there yet, or not yet laid out
        return 0


def kill_at(process: WarmProcess, study: Path, count: int) -> None:
    deadline = time.monotonic() + 240
    while kept_in(study) < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.kill()
    process.wait()


@pytest.mark.thorough
def test_a_race_killed_at_random_moments_chooses_as_one_that_was_left_alone(start: Any, tmp_path: Path) -> None:
    out, err = start(tmp_path / "whole").communicate()
    assert err == ""
    whole, run = json.loads(out), tmp_path / "run"
    assert whole["leaderboard"]["standings"][0]["name"] == "eigenpruning"
    everything = kept_in(tmp_path / "whole" / "study.db")
    for count in sorted(random.Random(0).sample(range(2, 3 * everything // 4), KILLS)):
        kill_at(start(run, "--resume", slowly=True), run / "study.db", count)
        assert not (run / "result.json").exists()
    out, err = start(run, "--resume").communicate()
    assert err == ""
    found = json.loads(out)
    assert Recipe.load(run / "recipe") == Recipe.load(tmp_path / "whole" / "recipe")
    for key in ("base", "edited", "comparison", "interventions"):
        assert found[key] == whole[key]
    boards = [Leaderboard.read(folder / "leaderboard.json") for folder in (tmp_path / "whole", run)]
    one, other = ([(own.name, own.state, own.select, own.drift) for own in board.standings] for board in boards)
    assert one == other
    assert found["cost"]["evaluations"] == whole["cost"]["evaluations"]  # nothing was done twice, and nothing left out
    assert not [path for path in run.rglob("*") if path.name.endswith(".partial")]
