"""JSON says one thing to all who read it, or is refused."""

import json

import pytest

from strop.plain_json import parse_json, to_json


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"a": 1, "b": {"c": 1, "c": 2}}', "the key 'c' is there twice"),
        ("[NaN]", "NaN is no number in JSON"),
        ("[-Infinity]", "-Infinity is no number in JSON"),
        ("[1e400]", "the number 1e400 is too large"),
        ("[9223372036854775808]", "the number 9223372036854775808 is too large"),
        ("[" + "9" * 5000 + "]", "the number 9{39}… is too large"),
        ('["\\ud83d"]', "a text holds half a character"),
        ("[" * 65 + "]" * 65, "lists lie too deep in one another"),
        ("[" * 100_000 + "]" * 100_000, "lists lie too deep in one another"),
        ("[1", "Expecting ',' delimiter"),
    ],
)
def test_json_that_readers_may_take_otherwise_is_refused(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=f"^{reason}"):
        parse_json(text)


def test_ordinary_json_is_read() -> None:
    assert parse_json('{"a": [1, -2.5, "\\ud83d\\ude00", null, true]}') == {"a": [1, -2.5, "\U0001f600", None, True]}
    assert parse_json("[" * 64 + "]" * 64)


def test_json_is_indented_and_short_lists_stand_on_one_line_where_that_is_asked() -> None:
    value = {"a": [1, {"b": "ä", "c": []}], 2: (True, None, {})}
    plain = {"a": [1, {"b": "ä", "c": []}], "2": [True, None, {}]}
    assert to_json(value) == json.dumps(plain, indent=2, ensure_ascii=False) + "\n"
    assert to_json(value, width=30).splitlines() == [
        "{", '  "a": [1, {"b": "ä", "c": []}],', '  "2": [true, null, {}]', "}",
    ]  # fmt: skip
    assert json.loads(to_json(value, width=30)) == plain
    numbers = {"many": [*range(-20, 20), 1e-9, 2.5, None, True], "none": [float("inf")] * 2}
    assert to_json(numbers) == json.dumps({**numbers, "none": [None, None]}, indent=2) + "\n"
