"""Files that are either whole or not there: written under a temporary name, then renamed."""

import contextlib
import json
import math
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NoReturn

from strop.errors import UsageError, quoted, shortened

PARTIAL = ".partial"
"""How the name of a folder ends that is still being written."""


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


def to_json(value: object) -> str:
    """Return a value as indented JSON that any reader takes: NaN and infinity, which JSON has not, become null.

    >>> to_json([1.5, float("nan")]).split()
    ['[', '1.5,', 'null', ']']
    """
    return json.dumps(_finite(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


MOST_DEEP = 64
"""Levels of lists and objects in one another that a JSON file may have."""


def parse_json(text: str) -> object:
    """Return what a JSON text says, where it says one thing and plainly: what other readers might take otherwise is refused.

    Raises:
        ValueError: it is no JSON, a key stands twice in one object, or it holds NaN, infinity, a number that no machine word
            holds, half a character, or hundreds of lists in one another.

    >>> parse_json('{"seed": 0, "seed": 1}')
    Traceback (most recent call last):
    ValueError: the key 'seed' is there twice
    """
    try:
        value: object = json.loads(
            text,
            object_pairs_hook=_object,
            parse_int=_whole_number,
            parse_float=_finite_number,
            parse_constant=_no_constant,
        )
    except RecursionError:
        raise ValueError("lists lie too deep in one another") from None
    _refuse_depth(value)
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError("a text holds half a character (a lone surrogate)") from None
    return value


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found: dict[str, object] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {quoted(key, most=40)} is there twice")
        found[key] = value
    return found


def _whole_number(text: str) -> int:
    if len(text) > 20 or not -(2**63) <= int(text) < 2**63:
        raise ValueError(f"the number {shortened(text, most=40)} is too large")
    return int(text)


def _finite_number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {shortened(text, most=40)} is too large")
    return value


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number in JSON")


def _refuse_depth(value: object) -> None:
    level = [value]
    for _ in range(MOST_DEEP):
        level = [
            inner
            for outer in level
            if isinstance(outer, (list, dict))
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return
    raise ValueError("lists lie too deep in one another")


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
