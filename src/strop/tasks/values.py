"""What a row's values are: one rule, whatever file or object they came from.

A text, a number and a date can be written into a prompt. Nothing else can: a value that is missing, a boolean, a list, an object
or a float that may have been a whole number is refused where a template would write it, and the template says what to
write.
"""

import datetime as dt
import decimal
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from strop.errors import quoted

MOST = 10**15
"""Up to here a float and a whole number are the same number."""


class Written(float):
    """A number of a text file, which is written as it stands there: 1.10 stays 1.10.

    >>> str(Written("1.10")), Written("1.10") == 1.1
    ('1.10', True)
    """

    text: str

    def __new__(cls, text: str) -> "Written":
        """Return the number that a text spells."""
        self = super().__new__(cls, text)
        self.text = str(text)
        return self

    def __str__(self) -> str:
        return self.text

    def __format__(self, spec: str) -> str:
        return float.__format__(self, spec) if spec else self.text


class NotTextError(Exception):
    """A value that no template may write as it is; it says why, and what to write in its place."""


def plain(value: Any) -> Any:
    """Return a value as one of Python's own: numpy's unpacked, bytes decoded as UTF-8, None for NaN and its like.

    Bytes that are no UTF-8 text stay bytes.

    >>> plain(b"red"), plain(float("nan")), plain(np.float32(0.1)), plain(np.array([1, 2]))
    ('red', None, 0.1, [1, 2])
    """
    if isinstance(value, str):
        return str(value)
    if isinstance(value, np.generic):
        value = _from_numpy(value)
    if isinstance(value, np.ndarray):
        return [plain(entry) for entry in value]
    if isinstance(value, (bytes, bytearray, memoryview)):
        try:
            return bytes(value).decode("utf-8")
        except UnicodeDecodeError:
            return bytes(value)
    if isinstance(value, float):
        return None if math.isnan(value) else value
    if isinstance(value, decimal.Decimal):
        return None if value.is_nan() else value
    return None if type(value).__name__ in ("NAType", "NaTType") else value


def _from_numpy(value: np.generic) -> Any:
    if isinstance(value, np.datetime64):
        return value.astype("datetime64[us]").item()
    narrow = isinstance(value, (np.float16, np.float32))  # whose nearest double has digits that nobody wrote
    return float(str(value)) if narrow else value.item()


def name_of(value: Any) -> str | None:
    """Return what a value names, such as a group; None where it is missing or blank.

    The number 2 names the same as 2.0, as a column with gaps becomes floats in some formats.

    Raises:
        NotTextError: the value is none of a text, a number, a boolean and a date.

    >>> name_of(2.0), name_of(True), name_of("  "), name_of(float("nan"))
    ('2', 'true', None, None)
    """
    value = plain(value)
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float | decimal.Decimal) and -MOST < value < MOST and value == int(value):
        value = int(value)
    if isinstance(value, int):
        return digits(value)
    if isinstance(value, float):
        return repr(float(value))
    if isinstance(value, (str, decimal.Decimal, dt.date, dt.time)):
        return whole_text(str(value))
    raise NotTextError(f"{kind_of(value)} names nothing")


def amount_of(value: Any) -> float | None:
    """Return what a value counts: a number of 0 or more, also one that is spelt out; None where it is missing or blank.

    Raises:
        NotTextError: it is no such number.

    >>> amount_of(12), amount_of("1e3"), amount_of(""), amount_of(None)
    (12.0, 1000.0, None, None)
    """
    value = plain(value)
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    try:
        amount = float(value) if not isinstance(value, bool) else math.nan
    except (TypeError, ValueError, OverflowError):
        amount = math.nan
    if not math.isfinite(amount) or amount < 0:
        spelt = isinstance(value, (str, int, float)) and not isinstance(value, bool)
        shown = quoted(str(value), most=40) if spelt else kind_of(value)
        raise NotTextError(f"a frequency is a number of 0 or more, and it holds {shown}")
    return amount


def is_finite(number: int | float | decimal.Decimal) -> bool:
    """Return whether a number is neither infinite nor NaN, however large it is."""
    if isinstance(number, decimal.Decimal):
        return number.is_finite()
    return isinstance(number, int) or math.isfinite(number)


def digits(value: int) -> str:
    """Return a whole number as text.

    Raises:
        NotTextError: it has more digits than Python writes.
    """
    try:
        return str(value)
    except ValueError:
        raise NotTextError("a number of more than 4,300 digits is no text; give it as one, in quotes") from None


def whole_text(text: str) -> str:
    r"""Return a text that can be written as UTF-8.

    Raises:
        NotTextError: it has half of a surrogate pair or a NUL character in it.

    >>> whole_text("\ud83d")
    Traceback (most recent call last):
    strop.tasks.values.NotTextError: '\ud83d' holds half of a surrogate pair ('\ud83d'), which is no character; correct it
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        half = text[error.start]
        raise NotTextError(
            f"{quoted(text, most=40)} holds half of a surrogate pair ({half!r}), which is no character; correct it"
        ) from None
    if "\0" in text:
        raise NotTextError(f"{quoted(text, most=40)} holds a NUL character, which no text has; remove it")
    return text


def kind_of(value: Any) -> str:
    """Return what to call a value that is no text, as a part of a sentence."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple)):
        return "a list"
    if isinstance(value, Mapping):
        return "an object"
    if isinstance(value, bytes):
        return "bytes that are no UTF-8"
    if isinstance(value, (int, float, decimal.Decimal)):
        return "a number" if is_finite(value) else "a number that is not finite"
    return f"a value of type {type(value).__name__}"
