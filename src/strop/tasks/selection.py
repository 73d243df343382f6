"""Which rows of a source become examples: all but those a task file skips, and those its condition is not true of."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from strop.errors import TaskError, listed, quoted, shortened
from strop.tasks.keys import column_instead_of, field_of
from strop.tasks.rows import Row
from strop.tasks.text_files import DamagedRow
from strop.tasks.values import NotTextError, name_of

HOW = "name rows by their numbers, as in [3, 17], or by a column, as in {id: [a17, b4]}"


def rows_named(skip: Any) -> tuple[int, ...] | dict[str, tuple[str, ...]]:
    """Return what a task file writes in `skip` as row numbers, or as texts by column.

    Raises:
        ValueError: it names no rows.

    >>> rows_named([3, 17]), rows_named({"id": ["a17", 4]})
    ((3, 17), {'id': ('a17', '4')})
    """
    if isinstance(skip, Mapping) and skip:
        return {_column(column): _texts(values) for column, values in skip.items()}
    numbers = [skip] if isinstance(skip, int) else skip
    if not isinstance(numbers, (list, tuple)) or not numbers:
        raise ValueError(HOW)
    for number in numbers:
        if isinstance(number, bool) or not isinstance(number, int) or number < 1:
            raise ValueError(f"{quoted(str(number))} is not the number of a row, which counts from 1; {HOW}")
    return tuple(numbers)


def _column(column: Any) -> str:
    if not isinstance(column, str):
        raise ValueError(f"{quoted(str(column))} is not the name of a column; {HOW}")
    return column


def _texts(values: Any) -> tuple[str, ...]:
    listed_values = values if isinstance(values, (list, tuple)) else [values]
    if not listed_values or any(isinstance(value, (Mapping, list, tuple)) for value in listed_values):
        raise ValueError(HOW)
    try:
        texts = [name_of(value) for value in listed_values]
    except NotTextError as error:
        raise ValueError(f"{error}; {HOW}") from None
    if None in texts:
        raise ValueError(f"a blank names no row; {HOW}")
    return tuple(text for text in texts if text is not None)


@dataclasses.dataclass
class Skipped:
    """What of a task file's `skip` was met in its rows."""

    skip: tuple[int, ...] | dict[str, tuple[str, ...]] | None
    met: set[Any] = dataclasses.field(default_factory=set)

    def has(self, row: Row, number: int, *, where: str) -> bool:
        """Say whether a row is to be skipped, and remember that it was met.

        Raises:
            TaskError: the row lacks the column.
        """
        if self.skip is None:
            return False
        named: set[Any]
        if isinstance(self.skip, tuple):
            named = {number} & {*self.skip}
        elif isinstance(row, DamagedRow):
            named = set()
        else:
            named = {
                (column, own) for column, texts in self.skip.items() if (own := _name(row, column, where)) in texts
            }
        self.met |= named
        return bool(named)

    def refuse_unmet(self, *, what: str) -> None:
        """Raise TaskError if `skip` names a row that is not there.

        Args:
            what: to call the rows in an error.
        """
        if isinstance(self.skip, tuple):
            unmet = [str(number) for number in self.skip if number not in self.met]
            said = f"row {listed(unmet, most=5)}"
        else:
            pairs = [(column, text) for column, texts in (self.skip or {}).items() for text in texts]
            unmet = [f"{shortened(column)} {quoted(text)}" for column, text in pairs if (column, text) not in self.met]
            said = listed(unmet, most=5)
        if unmet:
            raise TaskError(f"skip: names {said}, which {what} has not; correct it or leave it out.")


def _name(row: Row, column: str, where: str) -> str | None:
    try:
        return name_of(field_of(row, column))
    except LookupError:
        raise TaskError(f"{where}: skip: {no_column(column, row)}.") from None
    except NotTextError:
        return None


def no_column(column: str, row: Row) -> str:
    """Return that a row lacks a column and what it has, as part of a sentence."""
    meant = column_instead_of(column, row)
    hint = f"; write {shortened(meant)}" if meant is not None else ""
    return f"names the column '{shortened(column)}', which is not there; the row has {listed(row) or 'none'}{hint}"
