"""Files that are either whole or not there: written under a temporary name, then renamed."""

import contextlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from strop.errors import UsageError

PARTIAL = ".partial"
"""How the name of a folder ends that is still being written."""


def cache_folder() -> Path:
    """Return the folder Strop keeps models and decompositions in: `$STROP_CACHE`, else `~/.cache/strop`."""
    named = os.environ.get("STROP_CACHE")
    if named:
        return Path(named).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "strop"


@contextlib.contextmanager
def replacing_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on a clean exit it takes the name `path`, otherwise it is removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".partial")
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
        if path.exists():
            path.replace(aside)
        temporary.replace(path)
        shutil.rmtree(aside, ignore_errors=True)


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


def remove_partial_folders(folder: Path) -> None:
    """Remove what a process that was killed left half-written in a folder."""
    for leftover in folder.glob(f".*{PARTIAL}"):
        shutil.rmtree(leftover, ignore_errors=True)


def refuse_occupied(path: Path, *, remedy: str) -> None:
    """Raise UsageError if something is at `path` that writing there would destroy."""
    if path.is_file():
        raise UsageError(f"{path} is a file, and a folder is to be written there: {remedy}.")
    if path.is_dir() and any(path.iterdir()):
        raise UsageError(f"{path} is there already and is not empty: {remedy}.")


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` in one step."""
    with replacing_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: object) -> None:
    """Write `value` to `path` as indented JSON in one step."""
    write_text(path, to_json(value))


def to_json(value: object) -> str:
    """Return a value as indented JSON that any reader takes: NaN and infinity, which JSON has not, become null.

    >>> to_json([1.5, float("nan")]).split()
    ['[', '1.5,', 'null', ']']
    """
    return json.dumps(_finite(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _finite(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(entry) for entry in value]
    return value


def make_readable(path: Path) -> None:
    """Give `path` the permissions an ordinary new file would have (safetensors writes 0600)."""
    path.chmod(0o666 & ~_umask())


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
