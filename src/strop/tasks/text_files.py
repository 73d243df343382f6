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


class DamagedRow(dict[str, Any]):
    """A row that cannot be read, with no columns: it is refused with all other bad rows, unless it is skipped by its number.

    Args:
        problem: a sentence that names the line and the remedy.
    """

    def __init__(self, problem: str) -> None:
        super().__init__()
        self.problem = problem


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


def rows_of_json_lines(text: str) -> list[Mapping[str, Any]]:
    """Return one row of each line that is not blank; a line that is no JSON object, or names a column twice, is damaged."""
    lines = enumerate(io.StringIO(text, newline=None), start=1)
    return [_row_of_line(line, number) for number, line in lines if line.strip()]


def _row_of_line(line: str, number: int) -> Mapping[str, Any]:
    try:
        row = _parsed(line, f"line {number}", lines=False)
    except TaskError as error:
        return DamagedRow(str(error))
    return row if isinstance(row, dict) else DamagedRow(f"line {number} is not a JSON object with named columns.")


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
        return rows_of_json_lines(text)
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

    A line that has more or fewer values than the header is a damaged row.

    Raises:
        TaskError: the header names a column twice, or a quote is not closed.
    """
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    rows: list[Mapping[str, Any]] = []
    begins = 1
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
            begins = reader.line_num + 1
            for line in lines:
                begins = reader.line_num + 1
                rows.append(_row_of_values(line, header, reader.line_num))
        except csv.Error as error:
            why = "a quote in it is never closed" if "end of data" in str(error) else reason_in(error)
            remedy = 'write "" for a quote inside a quoted value'
            raise TaskError(f"{shown}, line {begins} is not CSV: {why}; {remedy}.") from None
    return rows


def _row_of_values(values: Sequence[str], header: Sequence[str], number: int) -> Mapping[str, Any]:
    if len(values) == len(header):
        return {name: value or None for name, value in zip(header, values, strict=True) if name.strip()}
    has = f"line {number} has {len(values)} value{'' if len(values) == 1 else 's'}, not the header's {len(header)} columns"
    remedy = (
        "quote a value that holds the separator" if len(values) > len(header) else "write a separator for each blank"
    )
    return DamagedRow(f"{has}; {remedy}, or skip the row.")


READERS: dict[str, ReadText] = {
    ".jsonl": lambda text, _: rows_of_json_lines(text),
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
