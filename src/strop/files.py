"""Files that are either whole or not there: written under a temporary name, then renamed."""

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from strop.errors import UsageError
from strop.plain_json import to_json

PARTIAL = ".partial"
"""How the name of what is still being written ends."""


def cache_folder() -> Path:
    """Return the folder Strop keeps models and decompositions in: `$STROP_CACHE`, else `~/.cache/strop`.

    Raises:
        UsageError: it lies in the home folder of a user that has none.
    """
    named = os.environ.get("STROP_CACHE")
    folder = Path(named) if named else Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "strop"
    try:
        return folder.expanduser()
    except RuntimeError:  # no such user, or one without a home
        raise UsageError(
            f"There is no home folder for {folder}, where models and decompositions are kept: let $STROP_CACHE name a folder "
            "by its whole path."
        ) from None


@contextlib.contextmanager
def replacing_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on a clean exit it takes the name `path`, otherwise it is removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=PARTIAL)
    os.close(descriptor)
    temporary = Path(name)
    try:
        yield temporary
        make_readable(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def making_folder(path: Path, *, remedy: str = "choose another folder or remove this one") -> Iterator[Path]:
    """Yield a temporary folder beside `path`; on a clean exit it takes the name `path`, otherwise it is removed.

    Raises:
        UsageError: `path` is there already and is not an empty folder.
    """
    refuse_occupied(path, remedy=remedy)
    with _temporary_folder(path) as temporary:
        yield temporary
        _make_folder_readable(temporary)
        if path.exists():
            path.rmdir()
        temporary.replace(path)


@contextlib.contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; on a clean exit it takes the place of a folder that is there.

    Until then that one stays whole.
    """
    with _temporary_folder(path) as temporary:
        yield temporary
        _make_folder_readable(temporary)
        aside = temporary.with_suffix(f".old{PARTIAL}")
        try:
            if path.exists():
                path.replace(aside)
            temporary.replace(path)
        finally:
            _put_back(aside, path)


@contextlib.contextmanager
def _temporary_folder(path: Path) -> Iterator[Path]:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=PARTIAL))
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _make_folder_readable(folder: Path) -> None:
    folder.chmod(0o777 & ~_umask())
    for file in folder.rglob("*"):
        if file.is_file():
            make_readable(file)


def _put_back(aside: Path, path: Path) -> None:
    """Let what was put aside take its place again where nothing else has, and remove it otherwise."""
    if aside.exists() and not path.exists():
        aside.replace(path)
    shutil.rmtree(aside, ignore_errors=True)


_LEFTOVER = re.compile(r"\.(?P<name>.+)\.[a-z0-9_]{8}(?P<old>\.old)?\.partial", re.ASCII)


def is_leftover(path: Path) -> bool:
    """Return whether a name is one that things have while they are written here."""
    return _LEFTOVER.fullmatch(path.name) is not None


def remove_leftovers(folder: Path) -> None:
    """Remove what a process that was killed left half-written in a folder or below; what it had put aside comes back.

    Args:
        folder: that no other process writes to.
    """
    for leftover in sorted(folder.rglob(f".*{PARTIAL}")):
        named = _LEFTOVER.fullmatch(leftover.name)
        if named is None:
            continue
        if named["old"]:
            _put_back(leftover, leftover.with_name(named["name"]))
        elif leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)


def to_disk(path: Path) -> None:
    """Return when what a file holds is on the disk itself, whatever happens to the machine afterwards."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def refuse_occupied(path: Path, *, remedy: str) -> None:
    """Raise UsageError if something is at `path` that writing there would destroy."""
    if path.is_file():
        raise UsageError(f"{path} is a file, and a folder is to be written there: {remedy}.")
    if path.is_dir() and any(path.iterdir()):
        raise UsageError(f"{path} is there already and is not empty: {remedy}.")


def refuse_written(path: Path, *, force: bool) -> None:
    """Make sure that a file can be written, before time is spent on what is to be in it.

    Args:
        path: of the file.
        force: overwrite one that is there.

    Raises:
        UsageError: there is a file already and it is not to be overwritten, or something else than a file.
    """
    if path.is_file() and not path.is_symlink():
        if not force:
            raise UsageError(f"{path} is there already: name another file, or overwrite it by --force.")
    elif path.exists() or path.is_symlink():
        what = "a folder" if path.is_dir() else "no ordinary file"
        raise UsageError(f"{path} is {what}, and a file is to be written there: name a file.")
    above = next(parent for parent in path.absolute().parents if parent.exists())
    if not above.is_dir():
        raise UsageError(f"{path} cannot be written, for {above} is a file: name a file in a folder.")


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` in one step."""
    with replacing_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: object) -> None:
    """Write `value` to `path` as indented JSON in one step."""
    write_text(path, to_json(value))


def make_readable(path: Path) -> None:
    """Give `path` the permissions an ordinary new file would have (safetensors writes 0600)."""
    path.chmod(0o666 & ~_umask())


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
