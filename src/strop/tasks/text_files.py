"""Rows of text files: JSON Lines, JSON, CSV and TSV, read as they are written."""

import contextlib
import csv
import functools
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from strop.errors import TaskError, quoted, reason_in
from strop.tasks.values import Written

MOST_DIGITS = 4300
"""Of a whole number in JSON; Python reads no longer one."""
LONGEST_FIELD = 2**31 - 1
"""Characters in one field of a CSV, where Python's own reader stops at 131,072."""
UTF_16 = (b"\xff\xfe", b"\xfe\xff")

PARTED = {",": "commas, or by tabs in a file ending in .tsv", "\t": "tabs, or by commas in a file ending in .csv"}

ReadText = Callable[[str, str], list[Mapping[str, Any]]]
"""From a text, and what to call it in an error, to its rows."""


def decoded(path: Path) -> str:
    """Return a file's text, without a byte order mark.

    Raises:
        TaskError: it cannot be read, is not UTF-8, or holds a NUL byte; the message names the line and the remedy.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise TaskError(f"The data file {path} cannot be read: {error.strerror or error}.") from None
    if content.startswith(UTF_16):
        raise TaskError(f"The data file {path} is UTF-16 text, not UTF-8; save it as UTF-8.")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise TaskError(
            f"The data file {path} is not UTF-8 text: line {line} has the byte 0x{content[error.start]:02x} (byte "
            f"{error.start} of the file); save it as UTF-8, such as by iconv -f LATIN1 -t UTF-8."
        ) from None
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise TaskError(
            f"The data file {path} holds a NUL byte in line {line}, which no text has; save it as UTF-8 text."
        )
    return text


def rows_of_json_lines(text: str, shown: str) -> list[Mapping[str, Any]]:
    """Return one row of each line that is not blank.

    Raises:
        TaskError: a line is no JSON object, or names a column twice.
    """
    rows: list[Mapping[str, Any]] = []
    for number, line in enumerate(io.StringIO(text, newline=None), start=1):
        if not line.strip():
            continue
        row = _parsed(line, f"{shown}, line {number}", lines=False)
        if not isinstance(row, dict):
            raise TaskError(f"{shown}, line {number} is not a JSON object with named columns.")
        rows.append(row)
    return rows


def rows_of_json(text: str, shown: str, *, field: str | None = None) -> list[Mapping[str, Any]]:
    """Return the rows of a list of objects, or of one object a line.

    Args:
        text: of the file.
        shown: what to call it in an error.
        field: the entry of an outer object that holds the list.

    Raises:
        TaskError: it is no such list, or an object names a column twice.
    """
    content = _parsed(text, shown, lines=True)
    if content is _SEVERAL:
        return rows_of_json_lines(text, shown)
    if field is not None:
        content = content.get(field) if isinstance(content, dict) else None
    odd = (
        next((n for n, row in enumerate(content, 1) if not isinstance(row, dict)), 0)
        if isinstance(content, list)
        else None
    )
    if odd != 0:
        which = "" if odd is None else f" (entry {odd} is none)"
        raise TaskError(f"{shown} is not a JSON list of objects{which}; for one object a line, name it .jsonl.")
    return list(content)


def rows_of_csv(
    text: str, shown: str, *, separator: str = ",", names: Sequence[str] | None = None
) -> list[Mapping[str, Any]]:
    """Return the rows below a header, each value as it is written, or None where there is none.

    Args:
        text: of the file.
        shown: what to call it in an error.
        separator: one character between two values.
        names: of the columns; the first line by default.

    Raises:
        TaskError: a line has more or fewer values than the header, which names no column twice.
    """
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    rows: list[Mapping[str, Any]] = []
    with _fields_of_any_length():
        try:
            lines = (line for line in reader if line)
            header = list(names) if names is not None else next(lines, [])
            twin = first_twin(name for name in header if name.strip())
            if twin is not None:
                raise TaskError(f"The header of {shown} names the column {quoted(twin, most=40)} twice; rename one.")
            if len(header) == 1 and any(other in header[0] for other in ",;\t"):
                by = PARTED.get(separator, quoted(separator))
                raise TaskError(f"The header of {shown} is one column, {quoted(header[0])}; part the columns by {by}.")
            for line in lines:
                if len(line) != len(header):
                    values = "1 value" if len(line) == 1 else f"{len(line)} values"
                    raise TaskError(
                        f"{shown}, line {reader.line_num} has {values}, not the header's {len(header)} columns; quote "
                        "a value that holds the separator."
                    )
                rows.append({name: value or None for name, value in zip(header, line, strict=True) if name.strip()})
        except csv.Error as error:
            raise TaskError(f"{shown}, line {reader.line_num} is not CSV: {reason_in(error)}.") from None
    return rows


READERS: dict[str, ReadText] = {
    ".jsonl": rows_of_json_lines,
    ".json": rows_of_json,
    ".csv": rows_of_csv,
    ".tsv": functools.partial(rows_of_csv, separator="\t"),
}
"""By the ending of a file's name."""

_SEVERAL = object()


class _UnfitError(ValueError):
    """What JSON allows, and no row may hold."""


def _parsed(text: str, shown: str, *, lines: bool) -> Any:
    """Return what a JSON text holds, or `_SEVERAL` where it goes on after a first value and may be one of `lines`."""
    try:
        return _DECODER.decode(text)
    except json.JSONDecodeError as error:
        if lines and error.msg == "Extra data":
            return _SEVERAL
        line = f"line {error.lineno}, " if lines else ""
        raise TaskError(f"{shown} is not JSON: {error.msg} ({line}column {error.colno}).") from None
    except _UnfitError as error:
        raise TaskError(f"{shown} {error}.") from None
    except RecursionError:
        raise TaskError(f"{shown} nests lists or objects too deeply to be read; flatten it.") from None


def _whole_number(digits: str) -> int:
    if len(digits) > MOST_DIGITS:
        raise _UnfitError(f"holds a number of {len(digits):,} digits; write it as a text, in quotes")
    return int(digits)


def _object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twin = first_twin(name for name, _ in pairs)
        raise _UnfitError(f"holds an object that names {quoted(twin or '', most=40)} twice; rename one")
    return found


_DECODER = json.JSONDecoder(parse_float=Written, parse_int=_whole_number, object_pairs_hook=_object)


def first_twin(names: Iterable[str]) -> str | None:
    """Return the first name that was there before, or None.

    >>> first_twin(["a", "b", "a"])
    'a'
    """
    seen: set[str] = set()
    return next((name for name in names if name in seen or seen.add(name)), None)  # type: ignore[func-returns-value]


@contextlib.contextmanager
def _fields_of_any_length() -> Iterator[None]:
    before = csv.field_size_limit(LONGEST_FIELD)
    try:
        yield
    finally:
        csv.field_size_limit(before)
