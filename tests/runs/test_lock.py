"""A run's folder is held by one at a time, and by nobody once its holder is dead."""

import os
import platform
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from strop.errors import RunError
from strop.runs import is_unused, lock, locked

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no flock")

HOLD = """
import runpy, sys
from pathlib import Path
with runpy.run_path(sys.argv[1])["locked"](Path(sys.argv[2])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "runs" / "first"


@pytest.fixture
def holder(folder: Path) -> Iterator["subprocess.Popen[str]"]:
    """Another process that holds the folder until its input ends."""
    command = [sys.executable, "-c", HOLD, str(lock.__file__), str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_folder_another_process_holds_is_refused_in_one_sentence_that_names_it(
    folder: Path, holder: "subprocess.Popen[str]"
) -> None:
    with pytest.raises(RunError) as raised, locked(folder):
        pass
    message = str(raised.value)
    assert message.startswith(f"{folder} is being worked on by process {holder.pid} on {platform.node()} since 20")
    assert message.endswith("; wait for it, or choose another --out.")
    assert "\n" not in message


def test_a_folder_is_free_once_its_holder_ends(folder: Path, holder: "subprocess.Popen[str]") -> None:
    holder.communicate("")
    assert not folder.exists()  # there was nothing in it
    with locked(folder):
        pass


def test_a_folder_is_free_once_its_holder_is_killed(folder: Path, holder: "subprocess.Popen[str]") -> None:
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    assert [entry.name for entry in folder.iterdir()] == [lock.LOCK_FILE]
    assert is_unused(folder)
    with locked(folder), pytest.raises(RunError, match=f"process {os.getpid()} on"), locked(folder):
        pass


def test_a_second_holder_in_the_same_process_is_refused_from_any_thread(folder: Path) -> None:
    refused = []

    def try_it() -> None:
        try:
            with locked(folder):
                pass
        except RunError as error:
            refused.append(str(error))

    with locked(folder):
        try_it()
        thread = threading.Thread(target=try_it)
        thread.start()
        thread.join()
        with locked(folder.with_name("second")):
            pass
    assert len(refused) == 2
    assert all(f"process {os.getpid()} on" in message for message in refused)
    try_it()
    assert len(refused) == 2


def test_a_folder_is_let_go_by_an_exception_and_its_content_stays(folder: Path) -> None:
    def interrupted() -> None:
        with locked(folder):
            (folder / "config.json").write_text("{}")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [entry.name for entry in folder.iterdir()] == ["config.json"]
    with locked(folder):
        pass
    assert [entry.name for entry in folder.iterdir()] == ["config.json"]


def test_an_empty_folder_that_was_there_stays(folder: Path) -> None:
    folder.mkdir(parents=True)
    with locked(folder):
        pass
    assert folder.is_dir()


def test_a_lock_is_no_content(folder: Path) -> None:
    assert is_unused(folder)
    with locked(folder):
        assert is_unused(folder)
        (folder / "config.json").write_text("{}")
        assert not is_unused(folder)


def test_a_folder_that_is_removed_while_it_is_made_is_made_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python finds it there, and then no folder: whoever held it has just removed it."""
    real, calls = Path.mkdir, []

    def gone_once(self: Path, *arguments: object, **options: object) -> None:
        calls.append(self)
        if len(calls) == 1:
            raise FileExistsError(17, "File exists", str(self))
        real(self, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "mkdir", gone_once)
    with locked(folder):
        assert folder.is_dir()
    assert len(calls) > 1


def test_what_is_no_folder_is_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("file", "link"):
        with pytest.raises((FileExistsError, NotADirectoryError)), locked(tmp_path / name):
            pass


def test_threads_that_compete_hold_it_one_at_a_time(folder: Path) -> None:
    inside, most, held = [], [], []

    def compete() -> None:
        while len(held) < 60:
            try:
                with locked(folder):
                    inside.append(1)
                    most.append(len(inside))
                    held.append(1)
                    inside.pop()
            except RunError:
                continue

    threads = [threading.Thread(target=compete) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(most) == {1}


def test_a_file_system_without_locks_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(descriptor: int, operation: int) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(lock.fcntl, "flock", none)
    with (
        pytest.raises(
            RunError, match=r"cannot be locked by its file system \(Function not implemented\): choose an --out"
        ),
        locked(folder),
    ):
        pass
