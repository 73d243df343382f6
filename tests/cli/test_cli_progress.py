"""How far a command is, where its output is piped: a line now and then on standard error, none where it is to be quiet."""

import re
from pathlib import Path
from typing import Any

import pytest

LINE = re.compile(r"^[^:]+: [\d,]+ of [\d,]+, (\d+ h )?(\d+ min )?(\d+ s )?left$")


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let half a minute be over at once."""
    monkeypatch.setattr("strop.cli.progress.EVERY_SECONDS", 0.0)


def search(strop_command: Any, tiny_folder: Path, facts: Path, quick: list[str], out: Path, *options: str) -> Any:
    outcome = strop_command("search", tiny_folder, "-t", facts, "-o", out, *quick, *options)
    assert outcome.code == 0
    return outcome


def test_lines_say_how_far_it_is(
    strop_command: Any, tiny_folder: Path, facts: Path, quick: list[str], tmp_path: Path, impatient: None
) -> None:
    outcome = search(strop_command, tiny_folder, facts, quick, tmp_path / "run", "--json")
    lines = [line for line in outcome.err.splitlines() if LINE.match(line)]
    assert any(line.startswith("measuring on held-out examples: ") for line in lines)
    assert "\r" not in outcome.err
    assert "\x1b" not in outcome.err
    assert isinstance(outcome.json, dict)


def test_a_short_command_writes_no_line(
    strop_command: Any, tiny_folder: Path, facts: Path, quick: list[str], tmp_path: Path
) -> None:
    outcome = search(strop_command, tiny_folder, facts, quick, tmp_path / "run")
    assert not [line for line in outcome.err.splitlines() if LINE.match(line)]
    assert "no edit: accuracy" in outcome.err


def test_quiet_writes_nothing(
    strop_command: Any, tiny_folder: Path, facts: Path, quick: list[str], tmp_path: Path, impatient: None
) -> None:
    assert search(strop_command, tiny_folder, facts, quick, tmp_path / "run", "--quiet").err == ""
