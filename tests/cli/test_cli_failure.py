"""Whatever a command raises: one sentence, an exit status, nothing on standard output, and never a bare traceback."""

import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from strop.errors import CheckpointError

Broken = Callable[..., Any]


@pytest.fixture
def broken(strop_command: Any, monkeypatch: pytest.MonkeyPatch, facts: Path, tmp_path: Path) -> Iterator[Broken]:
    """Call a command while loading its model raises what is given."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    before = signal.getsignal(signal.SIGINT)

    def call(error: BaseException, command: str = "eval", *options: object) -> Any:
        def load(*arguments: object, **given: object) -> None:
            raise error

        monkeypatch.setattr("strop.checkpoints.load", load)
        return strop_command(command, "model", "--task", facts, "--json", *options)

    yield call
    signal.signal(signal.SIGINT, before)


def sentence_of(outcome: Any, code: int = 1) -> str:
    """Return the one sentence a command failed with, as wide as two lines at most."""
    assert (outcome.code, outcome.out) == (code, ""), outcome.err
    (line,) = [line for line in outcome.err.splitlines() if not line.startswith("running on")]
    assert line.startswith("Error: ")
    assert line.endswith(".")
    assert len(re.sub(r"/tmp/\S+/", "/tmp/", line)) <= 205
    return str(line).removeprefix("Error: ")


CUDA = (
    "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 79.11 GiB of which 5.00 MiB is free. "
    "Including non-PyTorch memory, this process has 79.10 GiB memory in use.\nSee documentation for Memory Management"
)
CPU = (
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate "
    "4000000000000 bytes. Error code 12 (Cannot allocate memory)"
)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (torch.OutOfMemoryError(CUDA), "Out of memory (20.00 MiB more were asked for): "),
        (RuntimeError(CPU), "Out of memory (4000000000000 bytes more were asked for): "),
        (MemoryError("Unable to allocate 7.28 TiB for an array"), "Out of memory (7.28 TiB more were asked for): "),
        (MemoryError(), "Out of memory: "),
        (RuntimeError("MPS backend out of memory (MPS allocated: 8 GB)"), "Out of memory"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "Out of memory: "),
    ],
    ids=["cuda", "cpu", "numpy", "python", "mps", "system"],
)
def test_too_little_memory_names_what_makes_it_smaller(broken: Broken, error: BaseException, said: str) -> None:
    told = sentence_of(broken(error))
    assert told.startswith(said)
    assert told.endswith("repeat the command with --dtype bfloat16, or on a larger device.")


def test_the_remedy_for_memory_is_an_option_of_the_command(broken: Broken, tmp_path: Path) -> None:
    import typer

    from strop.cli import app

    commands: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    for command in ("train", "search", "prune", "sharpen", "eval"):
        out = ["--out", tmp_path / "run"] if command != "eval" else []
        named = re.findall(r"--[a-z-]+", sentence_of(broken(MemoryError(), command, *out)))
        assert named
        assert set(named) <= {option for parameter in commands[command].params for option in parameter.opts}
        assert not (tmp_path / "run").exists()


def test_too_little_memory_is_told_through_an_error_raised_from_it(broken: Broken) -> None:
    error = CheckpointError("The model 'm' cannot be loaded: CUDA out of memory.")
    error.__cause__ = torch.OutOfMemoryError(CUDA)
    assert sentence_of(broken(error)).startswith("Out of memory (20.00 MiB")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device", "/d/f"),
            "The disk is full (/d/f): No space left on device; free",
        ),
        (
            OSError(errno.EDQUOT, "Disk quota exceeded", "/d/f"),
            "Your disk quota is spent (/d/f): free some space, then",
        ),
        (PermissionError(errno.EACCES, "Permission denied", "/d/f"), "Permission denied (/d/f): name a place you may"),
        (OSError(errno.EROFS, "Read-only file system", "/d/f"), "Read-only file system (/d/f): name a place you may"),
        (
            FileNotFoundError(errno.ENOENT, "No such file or directory", "/d/f"),
            "No such file or directory (/d/f): check",
        ),
        (OSError(errno.EMFILE, "Too many open files"), "Too many open files: close other programs or raise the limit"),
        (OSError("one line\nanother line"), "one line."),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), None),
    ],
    ids=lambda value: type(value).__name__ + str(getattr(value, "errno", "")),
)
def test_what_the_system_refuses_is_a_sentence_with_its_remedy(
    broken: Broken, error: OSError, said: str | None
) -> None:
    outcome = broken(error)
    if said is None:  # nobody reads, so that nothing need be said
        assert (outcome.code, outcome.out) == (1, "")
        assert "Traceback" not in outcome.err
    else:
        assert sentence_of(outcome).startswith(said)


def test_what_is_nested_too_deeply_is_told(broken: Broken) -> None:
    told = sentence_of(broken(RecursionError("maximum recursion depth exceeded")))
    assert told.startswith("What was given is nested too deeply to be read: write it flatter")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            UnicodeEncodeError("latin-1", "a → b", 2, 3, "ordinal not in range"),
            r"'\u2192' cannot be written as latin-1: set",
        ),
        (
            UnicodeEncodeError("utf-8", "a\udc80", 1, 2, "surrogates not allowed"),
            r"The character '\udc80' is half of one",
        ),
    ],
    ids=["encoding", "surrogate"],
)
def test_a_character_that_cannot_be_written_is_named(broken: Broken, error: UnicodeEncodeError, said: str) -> None:
    assert sentence_of(broken(error)).startswith(said)


def test_anything_else_is_a_bug_that_says_what_to_send(broken: Broken, tmp_path: Path) -> None:
    told = sentence_of(broken(KeyError("x" * 500 + "\n\nmore")))
    assert told.startswith("This is a bug in strop 0.1.0 (KeyError: 'xxx")
    name = re.search(r"please report it with (\S+), which holds the command and the traceback\.$", told)
    assert name is not None
    sent = Path(name[1]).read_text()
    assert sent.startswith("strop 0.1.0, Python ")
    assert "$ strop eval model --task" in sent
    assert f"torch {torch.__version__}" in sent
    assert "Traceback (most recent call last)" in sent
    assert "KeyError: 'xxx" in sent


def test_a_bug_is_told_though_nothing_can_be_written(broken: Broken, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", "/no/such/folder")
    assert sentence_of(broken(KeyError("x"))).endswith(
        "report it with what STROP_DEBUG=1 prints, which holds the command and the traceback."
    )


def test_a_traceback_is_shown_to_whoever_asks_for_it(broken: Broken, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STROP_DEBUG", "1")
    with pytest.raises(KeyError, match="x"):
        broken(KeyError("x"))


def test_an_interruption_says_how_to_go_on_and_exits_1(broken: Broken, tmp_path: Path) -> None:
    told = sentence_of(broken(KeyboardInterrupt()), code=1)
    assert told == "Interrupted; nothing half-written was left: repeat the command to begin again."
    told = sentence_of(broken(KeyboardInterrupt(), "search", "--out", tmp_path / "run"), code=1)
    assert told == "Interrupted before the run began; nothing was written."


def strop_process(*arguments: object, **environment: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-m", "strop", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )


def test_an_old_encoding_takes_tables_and_json_all_the_same(tiny_folder: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "Zürich→"
    code = (
        "import importlib, sys, strop.cli.console as c; from strop.report import Table;"
        "a = importlib.import_module('strop.cli.app');"
        "a.app = lambda: (c.print_table(Table('τ', ('a', '→'), (('é', '1'),))), c.print_json({'k': sys.argv[1]}));"
        "a.main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(recipe)],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "latin-1"},
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    table, _, told = done.stdout.decode("latin-1").partition("{")
    assert "é" in table
    assert "?" in table
    assert json.loads("{" + told)["k"] == str(recipe)


def test_a_reader_that_has_left_is_no_traceback(tmp_path: Path) -> None:
    with strop_process("--help", COLUMNS="200") as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        err = process.stderr.read()
    assert process.returncode in (0, 1)
    assert b"Traceback" not in err
    assert b"Exception ignored" not in err


@pytest.mark.thorough
def test_an_early_interruption_of_a_real_process_is_no_traceback(tiny_folder: Path, facts: Path) -> None:
    process = strop_process("eval", tiny_folder, "--task", facts, "--limit", "20")
    time.sleep(1.5)  # while torch is being imported
    process.send_signal(signal.SIGINT)
    out, err = process.communicate()
    if process.returncode == 0:
        pytest.skip("it was done before it could be interrupted")
    # the second is what Python ends by where Ctrl-C passes through exec of a text
    assert process.returncode in (1, -signal.SIGINT), err
    assert out == b""
    assert err.decode().splitlines()[-1].startswith("Error: Interrupted")
    assert b"Traceback" not in err
