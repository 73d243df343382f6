"""JSON that every reader takes alike: NaN is never written, and what could be taken otherwise is not read."""

import json
import math
from collections.abc import Mapping
from typing import NoReturn

from strop.errors import quoted, shortened

MOST_DEEP = 64
"""Levels of lists and objects in one another that a JSON file may have."""


def to_json(value: object, *, width: int = 0) -> str:
    r"""Return a value as indented JSON that any reader takes: NaN and infinity, which JSON has not, become null.

    Args:
        value: what JSON can hold.
        width: a list or an object that ends within so many characters stands on one line.

    >>> to_json([1.5, float("nan")]).split()
    ['[', '1.5,', 'null', ']']
    >>> to_json({"layers": [1, 2]}, width=80)
    '{"layers": [1, 2]}\n'
    """
    return _written(json.loads(json.dumps(_finite(value), allow_nan=False)), width, indent="") + "\n"


def _written(value: object, width: int, *, indent: str) -> str:
    line = json.dumps(value, ensure_ascii=False)
    if not value or not isinstance(value, (dict, list)) or len(indent) + len(line) <= width:
        return line
    deeper = indent + "  "
    if isinstance(value, dict):
        parts = [
            f"{json.dumps(key, ensure_ascii=False)}: {_written(own, width, indent=deeper)}"
            for key, own in value.items()
        ]
    elif any(isinstance(own, (str, list, dict)) for own in value):
        parts = [_written(own, width, indent=deeper) for own in value]
    else:
        parts = line[1:-1].split(", ")  # numbers, of which there may be many
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    inner = f",\n{deeper}".join(parts)
    return f"{opening}\n{deeper}{inner}\n{indent}{closing}"


def _finite(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, (str, int)):
        return value
    if isinstance(value, Mapping):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(entry) for entry in value]
    return value


def parse_json(text: str) -> object:
    """Return what a JSON text says, where it says one thing and plainly: what other readers might take otherwise is refused.

    Raises:
        ValueError: it is no JSON, a key stands twice in one object, or it holds NaN, infinity, a number that no machine word
            holds, half a character, or more than `MOST_DEEP` lists in one another.

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
