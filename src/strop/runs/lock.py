"""One process at a time works on a run: a lock the operating system releases when the process dies."""

import contextlib
import datetime
import json
import os
import platform
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

from strop.errors import RunError
from strop.files import is_leftover

if sys.platform != "win32":
    import fcntl

LOCK_FILE = ".lock"
"""The name of the file that is locked; it says who holds it and is gone afterwards, but for a process that was killed."""


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a run's folder, which is made if it is not there, so that nobody else works on it.

    It is held by `flock`, which also refuses a second holder in the same process. Windows has none: there nothing is held.

    Args:
        folder: of the run.

    Raises:
        RunError: someone holds it, or its file system has no locks.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as parent, locked(Path(parent) / "run"):
    ...     try:
    ...         with locked(Path(parent) / "run"):
    ...             print("held twice")
    ...     except RunError:
    ...         print("held already")
    held already
    """
    made = not folder.exists()
    descriptor = _hold(folder)
    try:
        holder = {"process": os.getpid(), "host": platform.node(), "since": _now()}
        os.ftruncate(descriptor, 0)
        os.write(descriptor, json.dumps(holder).encode())
        yield
    finally:
        _let_go(folder / LOCK_FILE, descriptor)
        if made:
            with contextlib.suppress(OSError):  # there is something in it, as there should be
                folder.rmdir()


def is_unused(folder: Path) -> bool:
    """Return whether there is nothing in a folder, a lock's file and what a killed process left half-written aside.

    Args:
        folder: there or not.
    """
    return not folder.exists() or all(entry.name == LOCK_FILE or is_leftover(entry) for entry in folder.iterdir())


def _hold(folder: Path) -> int:
    """Return the descriptor of the folder's lock file, locked."""
    path = folder / LOCK_FILE
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except (FileNotFoundError, FileExistsError):
            if _is_no_folder(folder):
                raise
            continue  # whoever held it has just removed the folder, which was empty
        try:
            _lock(descriptor, folder)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), path.stat()):
                    return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # whoever held it has just removed the file, so someone else may hold a new one


def _is_no_folder(path: Path) -> bool:
    """Return whether something else than a folder is there."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return False
    return not stat.S_ISDIR(mode) and not path.is_dir()


def _lock(descriptor: int, folder: Path) -> None:
    if sys.platform == "win32":
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise RunError(
            f"{folder} is being worked on by {_holder(descriptor)}; wait for it, or choose another --out."
        ) from None
    except OSError as error:
        reason = (error.strerror or str(error)).rstrip(".")
        raise RunError(
            f"{folder} cannot be locked by its file system ({reason}): choose an --out on another."
        ) from error


def _let_go(path: Path, descriptor: int) -> None:
    if sys.platform == "win32":
        os.close(descriptor)
        path.unlink(missing_ok=True)
        return
    path.unlink(missing_ok=True)  # while it is held: nobody shall hold a file that is about to go
    os.close(descriptor)


def _holder(descriptor: int) -> str:
    try:
        holder = json.loads(os.pread(descriptor, 4096, 0))
        return f"process {holder['process']} on {holder['host']} since {holder['since']}"
    except (OSError, ValueError, KeyError):  # it has not got as far as saying so
        return "another process"


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
