"""The command line, called in this process or, where it is to be killed or starved, in one of its own."""

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.fixtures.warm import StartWarm, WarmProcess

START = "from strop.cli import main; main()"

SLOWLY = """
import time
from strop.proving.claim import Claim
finish = Claim.finish
Claim.finish = lambda claim, trial: (time.sleep(0.1), finish(claim, trial))[1]
"""
"""A trial takes a tenth of a second or more, so that a signal after one of them never comes after the last."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output as JSON."""
        return json.loads(self.out)


@pytest.fixture
def strop_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Call a command: `strop_command("inspect", folder, "--json")`."""

    def call(*arguments: object) -> Outcome:
        from strop.cli import main

        monkeypatch.setattr("sys.argv", ["strop", *map(str, arguments)])
        capsys.readouterr()
        try:
            main()
            code = 0
        except SystemExit as exit_:
            code = exit_.code if isinstance(exit_.code, int) else 0 if exit_.code is None else 1
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return call


@pytest.fixture
def refused(strop_command: Callable[..., Any], tmp_path: Path) -> Callable[..., str]:
    """Call a command that must fail with one sentence, print nothing, and leave no run; return the sentence."""

    def call(*arguments: object, code: int = 1) -> str:
        outcome = strop_command(*arguments, "--quiet")
        assert (outcome.code, outcome.out) == (code, ""), outcome.err
        assert outcome.err.startswith("Error: ")
        assert outcome.err.count("\n") == 1
        assert outcome.err.rstrip("\n").endswith((".", "?"))
        assert not outcome.err.rstrip("\n").endswith("..")
        assert "Traceback" not in outcome.err
        assert not (tmp_path / "run").exists()
        return str(outcome.err).removeprefix("Error: ").rstrip("\n")

    return call


@pytest.fixture
def start_strop(tmp_path: Path, warm_python: StartWarm) -> Iterator[Callable[..., WarmProcess]]:
    """Start a command in a process of its own, which is ended with the test; `slowly` gives a signal time to arrive."""
    started = []

    def start(*arguments: object, most_bytes: int = 0, slowly: bool = False) -> WarmProcess:
        cache = {"STROP_CACHE": str(tmp_path / "cache")}
        code = SLOWLY + START if slowly else START
        started.append(warm_python(code, *arguments, environment=cache, most_bytes=most_bytes))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture
def quick() -> list[str]:
    """The options of a search that takes a second."""
    return ["--rank-fractions", "0.1,0.5", "--gradient-examples", "8", "--top-matrices", "3", "--layers", "1-2"]
