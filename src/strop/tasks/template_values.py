"""A row as templates see it: what can be written is written, and all else says why it cannot."""

import contextlib
import datetime as dt
import decimal
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

import jinja2
import jinja2.filters

from strop.errors import quoted, shortened
from strop.tasks.values import NotTextError, Written, digits, is_finite, kind_of, plain


class NoValueError(jinja2.UndefinedError):
    """A value that a template writes or reckons with is missing."""


class Missing(jinja2.Undefined):
    """A value that is not there, though its column is: `default`, `is none`, `or` and `if` see it, and nothing else may.

    Among numbers and booleans `if` may not either: a number that is missing is not zero, and no answer is not "no".

    Args:
        name: what to call it, such as `column` or `column[2]`.
        uncertain: it stands among numbers or booleans.
    """

    __slots__ = ("uncertain",)

    def __init__(self, name: str, *, uncertain: bool = False) -> None:
        super().__init__(hint=name, exc=NoValueError)
        self.uncertain = uncertain

    def __bool__(self) -> bool:
        return self._fail_with_undefined_error() if self.uncertain else False

    def __eq__(self, other: Any) -> bool:
        return other is None or isinstance(other, Missing) or other == "" or self._fail_with_undefined_error()

    def __ne__(self, other: Any) -> bool:
        return not self == other

    def __str__(self) -> str:
        return self._fail_with_undefined_error()

    def __hash__(self) -> int:
        return self._fail_with_undefined_error()

    def __len__(self) -> int:
        return self._fail_with_undefined_error()

    def __iter__(self) -> Iterator[Any]:
        return self._fail_with_undefined_error()


class _Untold:
    """A value that no template may write; it says why."""

    _says: str

    def __str__(self) -> str:
        raise NotTextError(self._says)

    def __format__(self, spec: str) -> str:
        return super().__format__(spec) if spec else str(self)

    def __html__(self) -> str:
        return str(self)


class _Truth(_Untold, int):
    pass


class _Whole(_Untold, float):
    pass


class _Entries(_Untold, list[Any]):
    pass


class _Object(_Untold, dict[str, Any]):
    pass


class _Moment(_Untold, dt.datetime):
    pass


class _Opaque(_Untold):
    pass


class _Digits(decimal.Decimal):
    """A decimal that is written with all its digits, 0.0000001 and not 1E-7."""

    def __str__(self) -> str:
        return format(self, "f")


class _Text(str):
    """A text that is not taken for the number, or the truth, that it spells: 'False' is not false, and '1' is not 1."""

    __slots__ = ("_name", "_truth")
    _name: str
    _truth: bool

    def __new__(cls, text: str, name: str, truth: bool) -> "_Text":
        self = super().__new__(cls, text)
        self._name, self._truth = name, truth
        return self

    def __eq__(self, other: object) -> bool:
        if isinstance(other, (int, float, decimal.Decimal)) and _spells(self, other):
            says = f"'{self}' == {str(other).lower()} is never so: write {self._name} == '{self}'"
            number = "" if isinstance(other, bool) else f", or {self._name}|float == {other}"
            raise NotTextError(f"compares a text of column '{shortened(self._name)}', and {says}{number}")
        return super().__eq__(other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = str.__hash__

    def __bool__(self) -> bool:
        if self._truth and str(self).strip().casefold() in ("false", "0"):
            raise NotTextError(
                f"asks whether column '{shortened(self._name)}' is true, and '{self}' is a text: compare it, as in "
                f"{self._name} == '{self}'"
            )
        return len(self) > 0


_Text.__name__, _Text.__module__ = "str", "builtins"  # what messages of Jinja and Python call it


def _spells(text: str, value: Any) -> bool:
    """Return whether a text spells a truth, where one is compared with it, or any number."""
    if isinstance(value, bool) and text.strip().casefold() in ("true", "false"):
        return True
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


class RowView:
    """What templates see of the rows of one source.

    Args:
        rows: of the source.
        columns: the columns that templates name; the others are left alone.
    """

    def __init__(self, rows: Iterable[Mapping[str, Any]], columns: Iterable[str]) -> None:
        self.columns = frozenset(columns)
        numbers: dict[str, set[bool | None]] = {column: set() for column in self.columns}
        truths: dict[str, bool] = {}
        for row in rows:
            for column in self.columns & row.keys():
                if isinstance(row[column], str) and truths.get(column, True):
                    truths[column] = row[column].strip().casefold() in ("true", "false", "1", "0", "")
                with contextlib.suppress(RecursionError):  # the row is refused when it is rendered
                    numbers[column].update(map(_whole, _numbers_in(row[column])))
        self.numeric = frozenset(column for column, kinds in numbers.items() if kinds)
        """The columns with a number or a boolean in them."""
        self.unsure = frozenset(column for column, kinds in numbers.items() if True in kinds and False not in kinds)
        """Those with floats, none of which has a fraction: they may have been whole numbers."""
        self.truths = frozenset(column for column, only in truths.items() if only)
        """Those whose texts all spell truths: a text such as 'False' may have been one."""

    def of(self, row: Mapping[str, Any], *, any_number: bool = False) -> dict[str, Any]:
        """Return a row for a template.

        Args:
            row: of the source.
            any_number: a float is read as a number again, so that 2.0 and 2 are one.
        """
        return {
            column: self._shown(row[column], column, column, column in self.unsure and not any_number)
            for column in self.columns & row.keys()
        }

    def _shown(self, value: Any, name: str, column: str, unsure: bool) -> Any:
        value = plain(value)
        if value is None:
            return Missing(name, uncertain=column in self.numeric)
        if isinstance(value, str):
            return _Text(value, name, column in self.truths)
        if isinstance(value, bool):
            says = f"{kind_of(value)}; write it in words: {{{{ 'yes' if {name} else 'no' }}}}"
            return _telling(_Truth(value), name, says)
        if isinstance(value, (list, tuple)):
            entries = [self._shown(each, f"{name}[{index}]", column, unsure) for index, each in enumerate(value)]
            says = f"a list; write {{{{ {name}|join(', ') }}}}, or one entry as {{{{ {name}[0] }}}}"
            return _telling(_Entries(entries), name, says)
        if isinstance(value, Mapping):
            named = {str(key): self._shown(each, f"{name}.{key}", column, unsure) for key, each in value.items()}
            says = f"an object; write an entry of it, as {{{{ {name}.{next(iter(named), 'KEY')} }}}}"
            return _telling(_Object(named), name, says)
        if isinstance(value, dt.datetime):
            moment = _Moment(*value.timetuple()[:6], value.microsecond, value.tzinfo)
            return _telling(moment, name, f"a date with its time; write {{{{ {name}.strftime('%Y-%m-%d') }}}}")
        if unsure and _whole(value):
            says = f"{value}, which may have been {value:.0f}: write {{{{ {name}|int }}}} or {{{{ '%.1f' % {name} }}}}"
            return _telling(_Whole(value), name, says)
        if isinstance(value, decimal.Decimal) and is_finite(value):
            return _Digits(value)
        if isinstance(value, (dt.date, dt.time)) or (_is_number(value) and is_finite(value)):
            return value
        return _telling(_Opaque(), name, f"{kind_of(value)}, of which no text is made; correct it or drop the row")


def _telling(value: Any, name: str, says: str) -> Any:
    value._says = f"column '{shortened(name)}' holds {shortened(says, most=120)}"
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, decimal.Decimal))


def _numbers_in(value: Any) -> Iterator[Any]:
    value = plain(value)
    if _is_number(value):
        yield value
    elif isinstance(value, (list, tuple)):
        for entry in value:
            yield from _numbers_in(entry)
    elif isinstance(value, Mapping):
        yield from _numbers_in(list(value.values()))


def _whole(number: Any) -> bool | None:
    """Return whether a number is a float without a fraction; False for one with a fraction, None for another kind."""
    return number.is_integer() if isinstance(number, float) and not isinstance(number, Written) else None


def written(value: Any) -> Any:
    """Return a template's value as it is written; Jinja calls it for each `{{ }}`.

    Raises:
        NotTextError: it is no text, no number and no date.
    """
    if isinstance(value, (jinja2.Undefined, _Untold)):
        return str(value)
    if value is None:
        raise NotTextError("gives nothing; say what stands for it, as in |default('…', true)")
    if isinstance(value, bool):
        raise NotTextError(f"gives {kind_of(value)}; write it in words, as in {{{{ 'yes' if … else 'no' }}}}")
    if isinstance(value, int):
        return digits(value)
    if _is_number(value) and is_finite(value):
        return str(value)
    if isinstance(value, (str, dt.time)) or (isinstance(value, dt.date) and not isinstance(value, dt.datetime)):
        return str(value)
    raise NotTextError(f"gives {kind_of(value)}, of which no text is made; choose an entry of it, or correct it")


def teach(environment: jinja2.Environment) -> None:
    """Let an environment's templates write what can be written, and refuse all else.

    Args:
        environment: whose `finalize`, filters, tests and policies are set.
    """
    environment.finalize = written
    environment.filters["int"] = _strict(jinja2.filters.do_int, "whole number", "int")
    environment.filters["float"] = _strict(jinja2.filters.do_float, "number", "float")
    environment.tests["none"] = lambda value: value is None or isinstance(value, Missing)
    environment.tests["boolean"] = lambda value: isinstance(value, (bool, _Truth))
    environment.tests["true"] = lambda value: isinstance(value, (bool, _Truth)) and bool(value)
    environment.tests["false"] = lambda value: isinstance(value, (bool, _Truth)) and not value
    environment.policies["json.dumps_function"] = lambda value, **keys: json.dumps(_bare(value), **keys)


def _strict(convert: Callable[..., Any], what: str, filter_name: str) -> Callable[..., Any]:
    """Return a filter that refuses what is no number, unless it is told what then stands for it."""

    def converted(value: Any, *default: Any, **keys: Any) -> Any:
        if default or "default" in keys:
            return convert(value, *default, **keys)
        found = convert(value, default=None, **keys)
        return _no_number(value, what, filter_name) if found is None else found

    return converted


def _no_number(value: Any, what: str, filter_name: str) -> NoReturn:
    raise NotTextError(
        f"{quoted(value) if isinstance(value, str) else kind_of(value)} is no {what}; correct it, or say what stands for it: "
        f"|{filter_name}(0)"
    )


def _bare(value: Any) -> Any:
    """Return a value as JSON has it."""
    if isinstance(value, Missing):
        return None
    if isinstance(value, _Truth):
        return bool(value)
    if isinstance(value, Mapping):
        return {key: _bare(entry) for key, entry in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        return [_bare(entry) for entry in value]
    return value
