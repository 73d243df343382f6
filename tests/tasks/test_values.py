"""Values that are not text: read as text or refused by row and column, the same through every door."""

import csv
import datetime as dt
import decimal
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from strop.errors import TaskError
from strop.tasks import Example, load_task

Door = Callable[[Path, Sequence[dict[str, Any]]], object]
TEMPLATES = {"name": "t", "prompt": "Item {{ n }} is", "answer": " {{ a }}", "splits": {"select": 0.5, "test": 0.5}}


def as_json_lines(path: Path, rows: Sequence[dict[str, Any]]) -> str:
    path.with_suffix(".jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return str(path.with_suffix(".jsonl"))


def as_json(path: Path, rows: Sequence[dict[str, Any]]) -> str:
    path.with_suffix(".json").write_text(json.dumps(rows), encoding="utf-8")
    return str(path.with_suffix(".json"))


def as_csv(path: Path, rows: Sequence[dict[str, Any]], ending: str = ".csv") -> str:
    with path.with_suffix(ending).open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter="," if ending == ".csv" else "\t")
        writer.writeheader()
        writer.writerows(rows)
    return str(path.with_suffix(ending))


def as_tsv(path: Path, rows: Sequence[dict[str, Any]]) -> str:
    return as_csv(path, rows, ".tsv")


def as_parquet(path: Path, rows: Sequence[dict[str, Any]]) -> str:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), path.with_suffix(".parquet"))
    return str(path.with_suffix(".parquet"))


def in_a_folder(write: Callable[[Path, Sequence[dict[str, Any]]], str]) -> Door:
    def door(path: Path, rows: Sequence[dict[str, Any]]) -> str:
        path.mkdir()
        write(path / "train", rows)
        return f"hf://{path}#train"

    return door


def as_list(path: Path, rows: Sequence[dict[str, Any]]) -> object:
    return list(rows)


def as_dataset(path: Path, rows: Sequence[dict[str, Any]]) -> object:
    import datasets

    return datasets.Dataset.from_list(list(rows))


TEXT_FILES = {"jsonl": as_json_lines, "json": as_json, "csv": as_csv, "tsv": as_tsv}
DOORS: dict[str, Door] = {
    **TEXT_FILES,
    "parquet": as_parquet,
    **{f"hf://*.{name}": in_a_folder(write) for name, write in (*TEXT_FILES.items(), ("parquet", as_parquet))},
    "list": as_list,
    "Dataset": as_dataset,
}
TYPED = ("jsonl", "parquet", "hf://*.jsonl", "list", "Dataset")


def examples(source: object, **keys: Any) -> list[Example]:
    task = load_task({**TEMPLATES, "data": source, **keys})
    return sorted((example for split in task.splits.values() for example in split), key=lambda example: example.row)


def rows_with(*values: object) -> list[dict[str, Any]]:
    return [{"n": f"{number}", "a": value} for number, value in enumerate(values, start=1)]


def answers(*values: object, **keys: Any) -> list[str]:
    return [example.answer for example in examples(rows_with(*values), **keys)]


def refusal(source: object, **keys: Any) -> str:
    with pytest.raises(TaskError) as raised:
        examples(source, **keys)
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize("door", DOORS.values(), ids=DOORS)
def test_a_text_is_the_same_through_every_door(tmp_path: Path, door: Door) -> None:
    texts = ["NA", "null", "None", "nan", "02108", "2.0", "1e5", "true", "2024-01-31", "[1, 2]", "é", " ", "a\tb, c"]
    found = examples(door(tmp_path / "rows", rows_with(*texts)), answer="={{ a }}", group="a", category="a")
    assert [example.answer for example in found] == [f"={text}" for text in texts]
    named = [text if text.strip() else None for text in texts]
    assert [(example.group, example.category) for example in found] == [(name, name) for name in named]


@pytest.mark.parametrize("door", DOORS.values(), ids=DOORS)
def test_a_missing_value_is_refused_where_a_template_writes_it_through_every_door(tmp_path: Path, door: Door) -> None:
    source = door(tmp_path / "rows", rows_with("red", None, "blue", None))
    said = "row 2: the answer has no value, for column 'a' is empty; fill it, drop the row, or say what stands for it"
    assert said in refusal(source)
    found = examples(source, answer=" fixed", category="a", group="a")
    assert (
        [example.category for example in found] == [example.group for example in found] == ["red", None, "blue", None]
    )
    told = examples(source, answer=" {{ a|default('no colour') }}")
    assert [example.answer for example in told] == [" red", " no colour", " blue", " no colour"]


@pytest.mark.parametrize("name", TYPED)
def test_a_number_with_gaps_keeps_its_digits_or_is_refused(tmp_path: Path, name: str) -> None:
    source = DOORS[name](tmp_path / "whole", rows_with(2, None, 8))
    assert "row 2: the answer has no value" in refusal(source)
    assert [each.answer for each in examples(source, answer=" {{ a|default('?') }}")] == [" 2", " ?", " 8"]


@pytest.mark.parametrize("name", [name for name in TYPED if "jsonl" not in name])
def test_floats_that_may_have_been_whole_numbers_are_refused(tmp_path: Path, name: str) -> None:
    source = DOORS[name](tmp_path / "rows", rows_with(2.0, float("nan"), 8.0))
    said = "row 1: the template in answer: column 'a' holds 2.0, which may have been 2: write {{ a|int }} or {{ '%.1f' % a }}"
    assert said in refusal(source)
    assert "row 2: the answer has no value" in refusal(source, answer=" {{ a|int }}")
    assert answers(2.0, 8.0, answer=" {{ a|int }}") == [" 2", " 8"]
    assert answers(2.0, 8.0, answer=" {{ '%.1f' % a }}") == [" 2.0", " 8.0"]


def test_floats_of_which_one_has_a_fraction_are_written_as_they_are() -> None:
    assert answers(1.5, 2.0, np.float32(0.1)) == [" 1.5", " 2.0", " 0.1"]
    assert "row 2: the template in answer: column 'a' holds 2.0" in refusal(rows_with(1, 2.0))


def test_labels_that_are_numbers_are_read_as_numbers_again() -> None:
    assert answers(1.0, 2.0, answer="{{ a }}", labels="number", score="label") == ["1.0", "2.0"]


def test_floats_of_32_bits_have_the_digits_that_were_written(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.table({"n": ["1", "2"], "a": pyarrow.array([0.1, 0.7], pyarrow.float32())})
    pyarrow.parquet.write_table(table, tmp_path / "rows.parquet")
    assert [each.answer for each in examples(str(tmp_path / "rows.parquet"))] == [" 0.1", " 0.7"]


@pytest.mark.parametrize("name", ["jsonl", "json", "hf://*.jsonl"])
def test_a_number_in_json_is_written_as_it_stands_there(tmp_path: Path, name: str) -> None:
    source = str(DOORS[name](tmp_path / "rows", rows_with(1110, 2220, 3330)))
    file = next(path for path in tmp_path.rglob("*.json*"))
    file.write_text(file.read_text().replace("1110", "1.10").replace("2220", "2.0").replace("3330", "1e-3"))
    assert [each.answer for each in examples(source)] == [" 1.10", " 2.0", " 1e-3"]
    assert [each.answer for each in examples(source, answer="={{ a * 2 }}")] == ["=2.2", "=4.0", "=0.002"]


@pytest.mark.parametrize("name", TYPED)
def test_a_boolean_is_put_in_words_by_the_template_or_refused(tmp_path: Path, name: str) -> None:
    source = DOORS[name](tmp_path / "rows", rows_with(True, False, True))
    for template in (" {{ a }}", "{{ ' ' ~ a }}", " {{ a|string }}", " {{ [a]|join }}"):
        said = "row 1: the template in answer: column 'a' holds true; write it in words: {{ 'yes' if a else 'no' }}"
        assert said in refusal(source, answer=template)
    assert [each.answer for each in examples(source, answer=" {{ 'yes' if a else 'no' }}")] == [" yes", " no", " yes"]
    assert [each.answer for each in examples(source, answer=" {{ 'yes' if a is true else 'no' }}")] == [
        " yes",
        " no",
        " yes",
    ]
    assert [each.group for each in examples(source, answer=" x", group="a")] == ["true", "false", "true"]


@pytest.mark.parametrize("name", TYPED)
def test_lists_and_objects_are_never_written_by_accident(tmp_path: Path, name: str) -> None:
    lists = DOORS[name](tmp_path / "lists", rows_with(["red", "blue"], ["green"]))
    assert "row 1: the template in answer: column 'a' holds a list; write {{ a|join(', ') }}" in refusal(lists)
    assert "gives a list" in refusal(lists, answer=" {{ a|list }}")
    assert "gives a value of type generator" in refusal(lists, answer=" {{ a|map('upper') }}")
    assert [each.answer for each in examples(lists, answer=" {{ a|join('+') }}")] == [" red+blue", " green"]
    objects = DOORS[name](tmp_path / "objects", rows_with({"says": "red"}, {"says": None}))
    assert "column 'a' holds an object; write an entry of it, as {{ a.says }}" in refusal(objects)
    assert "row 2: the answer has no value, for column 'a.says' is empty" in refusal(objects, answer=" {{ a.says }}")
    assert [each.answer for each in examples(objects, answer="{{ a|tojson }}")] == ['{"says": "red"}', '{"says": null}']
    assert "group: column 'a': a list names nothing" in refusal(lists, answer=" x", group="a")


@pytest.mark.parametrize("name", ["parquet", "hf://*.parquet", "list", "Dataset"])
def test_bytes_dates_and_decimals_are_text_or_refused(tmp_path: Path, name: str) -> None:
    def through(*values: object) -> object:
        folder = tmp_path / f"{len(list(tmp_path.iterdir()))}"
        return DOORS[name](folder, rows_with(*values))

    assert [each.answer for each in examples(through(b"red", "blé".encode()))] == [" red", " blé"]
    assert "row 2: the template in answer: column 'a' holds bytes that are no UTF-8" in refusal(
        through(b"red", b"bl\xe9")
    )
    days = through(dt.date(2024, 1, 31), dt.date(2024, 2, 1))
    assert [each.answer for each in examples(days)] == [" 2024-01-31", " 2024-02-01"]
    prices = through(decimal.Decimal("1.1000000"), decimal.Decimal("0.0000001"))
    for template in (" {{ a }}", "{{ ' ' ~ a }}"):
        assert [each.answer for each in examples(prices, answer=template)] == [" 1.1000000", " 0.0000001"]
    moments = through(dt.datetime(2024, 1, 31), dt.datetime(2024, 2, 1))
    assert "column 'a' holds a date with its time; write {{ a.strftime('%Y-%m-%d') }}" in refusal(moments)
    assert [each.answer for each in examples(moments, answer=" {{ a.strftime('%d.%m.') }}")] == [" 31.01.", " 01.02."]


def test_a_value_that_no_template_uses_may_be_anything() -> None:
    rows = [
        {
            "n": "1",
            "a": "red",
            "image": b"\xff\xd8",
            "score": float("inf"),
            "note": None,
            "more": object(),
            "half": "\ud83d",
        }
    ]
    assert [each.answer for each in examples([*rows, {"n": "2", "a": "blue"}])] == [" red", " blue"]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (float("inf"), "column 'a' holds a number that is not finite"),
        (object(), "column 'a' holds a value of type object"),
        ("\ud83d!", "holds half of a surrogate pair ('\\ud83d'), which is no character"),
        ("a\0", "holds a NUL character, which no text has"),
        (10**5000, "a number of more than 4,300 digits is no text"),
        (np.array(["a", "b"]), "column 'a' holds a list"),
        (np.datetime64("NaT"), "the answer has no value"),
        (np.float64("nan"), "the answer has no value"),
        (decimal.Decimal("NaN"), "the answer has no value"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_what_is_no_text_is_named(value: object, said: str) -> None:
    message = refusal(rows_with("red", value))
    assert message.startswith("data, row 2: ")
    assert said in message


def test_what_pandas_calls_missing_is_missing() -> None:
    import pandas

    frame = pandas.DataFrame({"n": ["1", "2", "3"], "a": pandas.array([1, None, 3], dtype="Int64")})
    assert "data, row 2: the answer has no value" in refusal(frame.to_dict("records"))
    assert "data, row 1: the answer has no value" in refusal(rows_with(pandas.NaT))


@pytest.mark.parametrize(
    ("template", "found"),
    [
        (" {{ a or 'none' }}", [" red", " none"]),
        (" {{ a|d('none') }}", [" red", " none"]),
        (" {{ 'none' if a is none else a }}", [" red", " none"]),
        (" {{ a if a is defined else 'none' }}", [" red", " none"]),
        (" {{ 'none' if a == '' else a }}", [" red", " none"]),
        (" {% if a != none %}{{ a }}{% else %}none{% endif %}", [" red", " none"]),
        ("{% if a %} {{ a }}{% endif %}.", [" red.", "."]),
    ],
)
def test_a_template_may_say_what_stands_for_a_missing_value(template: str, found: list[str]) -> None:
    assert answers("red", None, answer=template) == found


@pytest.mark.parametrize(
    "template",
    ["{{ a|upper }}", "{{ ' ' ~ a }}", "{{ [a, 'x']|join }}", "{{ a|int }}", "{{ a.strip() }}", "{{ 'x' if a == 'red' else 'y' }}",
     "{{ {'red': 1}.get(a, 2) }}", "{{ '%s' % a }}", "{{ a|length }}", "{% for c in a %}{{ c }}{% endfor %}"],
)  # fmt: skip
def test_a_missing_value_is_never_reckoned_with(template: str) -> None:
    message = refusal(rows_with("12", None), answer=template.replace("red", "12"))
    assert "row 2: the answer has no value, for column 'a' is empty" in message


@pytest.mark.parametrize("values", [(True, None), (1, None), (0.5, None)])
def test_a_missing_number_is_not_zero_and_a_missing_boolean_is_not_no(values: Sequence[object]) -> None:
    message = refusal(rows_with(*values), answer=" {{ 'yes' if a else 'no' }}")
    assert "row 2: the answer has no value" in message


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{{ {}.get(a) }}", "gives nothing; say what stands for it, as in |default('…', true)"),
        ("{{ a == 'red' }}", "gives true; write it in words, as in {{ 'yes' if … else 'no' }}"),
        ("{{ a|replace(a, 'nan')|float }}", "gives a number that is not finite, of which no text is made"),
        ("{{ a.upper }}", "gives a value of type builtin_function_or_method, of which no text is made"),
        ("{{ (a, a) }}", "gives a list, of which no text is made; choose an entry of it"),
    ],
)
def test_what_a_template_reckons_is_held_to_the_same_rule(template: str, said: str) -> None:
    assert f"row 1: the template in answer: {said}" in refusal(rows_with("red", "blue"), answer=template)
    assert answers("red", "blue", answer="{{ {}.get(a)|default('none', true) }}") == ["none", "none"]


@pytest.mark.parametrize(
    ("template", "values", "said"),
    [
        (
            " {{ 'yes' if a == 1 else 'no' }}",
            ["1", "0"],
            "row 1: the template in answer: compares a text of column 'a', and '1' == 1 is never so: write a == '1', or "
            "a|float == 1; 1 more row",
        ),
        (" {{ 'yes' if 0.5 != a else 'no' }}", ["0.5", "x"], "'0.5' == 0.5 is never so: write a == '0.5', or"),
        (" {{ 'yes' if a in [0, 1] else 'no' }}", ["1", "0"], "'1' == 0 is never so"),
        (" {{ 'yes' if a == true else 'no' }}", ["True", "False"], "'True' == true is never so: write a == 'True'; 1"),
        (
            " {{ 'yes' if a else 'no' }}",
            ["True", "False"],
            "row 2: the template in answer: asks whether column 'a' is true, and 'False' is a text: compare it, as in "
            "a == 'False'.",
        ),
        (
            " {{ a and 'yes' or 'no' }}",
            ["1", "0", "0"],
            "row 2: the template in answer: asks whether column 'a' is true",
        ),
    ],
)
@pytest.mark.parametrize("door", ["csv", "jsonl", "list"])
def test_a_text_is_not_taken_for_the_number_or_truth_it_spells(
    tmp_path: Path, door: str, template: str, values: Sequence[str], said: str
) -> None:
    assert said in refusal(DOORS[door](tmp_path / "data", rows_with(*values)), answer=template)


@pytest.mark.parametrize(
    ("template", "values", "found"),
    [
        (" {{ 'yes' if a == '1' else 'no' }}", ["1", "0"], [" yes", " no"]),
        (" {{ 'yes' if a|int == 1 else 'no' }}", ["1", "0"], [" yes", " no"]),
        (" {{ 'yes' if a == 1 else 'no' }}", [1, "unknown"], [" yes", " no"]),  # a word is no number
        (" {{ a or 'none' }}", ["0", "a"], [" 0", " a"]),  # a column of words, one of which is 0
        (" {{ a or 'none' }}", ["1", ""], [" 1", " none"]),
        (" {{ {'0': 'no', '1': 'yes'}[a] }}", ["1", "0"], [" yes", " no"]),
        (" {{ 'yes' if a is none else 'no' }}", ["False", "True"], [" no", " no"]),
    ],
)
def test_a_text_is_compared_with_texts(template: str, values: Sequence[object], found: list[str]) -> None:
    assert answers(*values, answer=template) == found


@pytest.mark.parametrize("value", ["1,234", "", "twelve"])
def test_a_text_that_is_no_number_is_not_zero(value: str) -> None:
    rows = rows_with("5", value)
    assert f"{value!r} is no whole number; correct it, or say what stands for it: |int(0)" in refusal(
        rows, answer=" {{ a|int }}"
    )
    assert "is no number; correct it" in refusal(rows, answer=" {{ a|float }}")
    assert [each.answer for each in examples(rows, answer=" {{ a|int(7) }}")] == [" 5", " 7"]
    assert [each.answer for each in examples(rows, answer=" {{ a|int(default=8) }}")] == [" 5", " 8"]


@pytest.mark.parametrize(
    ("keys", "called"),
    [
        ({"prompt": "{{ a }}"}, "the prompt"),
        ({"prompt": "x{{ n }}", "answer": " red", "choices": [" {{ a }}", " red"], "score": "choice"}, "a choice"),
        ({"answer": " x", "chat": True, "system": "{{ a }}"}, "the system message"),
        ({"answer": " x", "score": "generate", "generate": {"gold": "{{ a }}"}}, "the gold"),
        ({"answer": " x", "counterfactual": "{{ a }}"}, "the counterfactual"),
        ({"answer": "x", "pair": "{{ a }}", "score": "label", "labels": ["x", "y"]}, "the second text"),
    ],
)
def test_a_missing_value_is_told_by_what_it_is_for(keys: dict[str, Any], called: str) -> None:
    assert f"row 2: {called} has no value, for column 'a' is empty" in refusal(rows_with("blue", None), **keys)


def test_what_stands_for_a_missing_value_in_a_condition_is_written_without_braces() -> None:
    message = refusal(rows_with("blue", None), where="a == 'blue'")
    assert message.endswith("drop the row, or say what stands for it: a|default('…').")
    assert answers("blue", None, "red", "blue", where="a|default('') == 'blue'") == [" blue", " blue"]


def test_a_choice_in_a_list_that_is_missing_is_refused() -> None:
    rows = [{"n": "1", "a": ["red", "blue"]}, {"n": "2", "a": ["red", None]}]
    message = refusal(rows, answer=" {{ a[0] }}", choices=[" {{ a[0] }}", " {{ a[1] }}"], score="choice")
    assert "row 2: a choice has no value, for column 'a[1]' is empty" in message


def test_paraphrases_are_texts_or_refused_by_their_number() -> None:
    rows = [*rows_with([b"Hue?", "Colour?"]), {"n": "2", "a": []}]
    assert [each.paraphrases for each in examples(rows, answer=" x", paraphrases="a")] == [("Hue?", "Colour?"), ()]
    for wrong, said in (
        (None, "row 2: column 'a' is not a list of prompts; it holds nothing"),
        (float("nan"), "row 2: column 'a' is not a list of prompts; it holds nothing"),
        (["Hue?", None], "row 2: column 'a' is not a list of prompts; its entry 2 is nothing"),
        (["Hue?", 7], "row 2: column 'a' is not a list of prompts; its entry 2 is a number"),
        (["\ud83d"], "row 2: column 'a', entry 1: '\\ud83d' holds half of a surrogate pair"),
    ):
        assert said in refusal([*rows[:1], {"n": "2", "a": wrong}], answer=" x", paraphrases="a")


@pytest.mark.parametrize(("one", "other"), [(2, 2.0), (2, "2"), (True, "true"), (dt.date(2024, 1, 31), "2024-01-31")])
def test_a_group_is_one_however_its_name_is_typed(one: object, other: object) -> None:
    rows = [{"n": "1", "a": one}]
    files = {"select": rows, "test": [{"n": "2", "a": other}]}
    with pytest.raises(TaskError, match="have the same group"):
        load_task({**TEMPLATES, "answer": " x", "group": "a", "splits": {"files": files}})


def test_nan_groups_tie_no_rows_together() -> None:
    rows = [{"n": str(n), "a": "red", "g": float("nan") if n < 9 else "x"} for n in range(12)]
    assert load_task({**TEMPLATES, "data": rows, "group": "g"}).counts == {"select": 6, "test": 6}
