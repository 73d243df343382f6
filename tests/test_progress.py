"""Bars show where a person watches, in a notebook or at a terminal, and nothing is written elsewhere."""

import dataclasses
import io
import sys
import types
from collections.abc import Callable
from pathlib import Path

import pytest

import strop
from strop.progress import SILENT, Bars, shown_here
from strop.proving import RunOptions


@dataclasses.dataclass
class Shell:
    config: dict[str, object]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


Notebook = Callable[[dict[str, object]], None]


@pytest.fixture
def in_ipython(monkeypatch: pytest.MonkeyPatch) -> Notebook:
    """Let IPython run with a configuration, which a notebook's kernel has an entry in."""

    def run(config: dict[str, object]) -> None:
        module = types.ModuleType("IPython")
        module.get_ipython = lambda: Shell(config)  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "IPython", module)

    return run


def test_a_script_without_a_terminal_says_nothing(
    capsys: pytest.CaptureFixture[str], tiny_folder: Path, facts: Path
) -> None:
    assert shown_here() is SILENT
    assert RunOptions().progress is SILENT
    strop.evaluate(tiny_folder, facts, limit=4)
    assert capsys.readouterr() == ("", "")


def test_bars_show_in_a_notebook(in_ipython: Notebook) -> None:
    in_ipython({"IPKernelApp": {}})
    assert isinstance(shown_here(), Bars)
    assert isinstance(RunOptions().progress, Bars)


def test_bars_do_not_show_in_ipython_without_a_terminal(in_ipython: Notebook) -> None:
    in_ipython({"TerminalIPythonApp": {}})
    assert shown_here() is SILENT


def test_bars_show_at_a_terminal(monkeypatch: pytest.MonkeyPatch, tiny_folder: Path, facts: Path) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    assert isinstance(shown_here(), Bars)
    strop.evaluate(tiny_folder, facts, limit=4)
    assert "scoring small-facts/test:   0%" in terminal.getvalue()


def test_whoever_wants_none_gets_none(monkeypatch: pytest.MonkeyPatch, tiny_folder: Path, facts: Path) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    strop.evaluate(tiny_folder, facts, limit=4, progress=SILENT)
    assert "scoring" not in terminal.getvalue()


def test_a_stage_replaces_the_one_before_and_notes_stand_above(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    bars = Bars()
    bars.advance()  # before any stage there is nothing to move
    bars.start("first", 10)
    bars.advance(3)
    bars.note("no edit: accuracy 0.1")
    bars.start("second", 2)
    bars.advance(2)
    shown = terminal.getvalue()
    assert "first:" in shown
    assert "no edit: accuracy 0.1\n" in shown
    assert "second:   0%" in shown
    assert shown.rstrip(" ").endswith("\r")
