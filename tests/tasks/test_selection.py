"""Rows that are left out by name or by a condition, and all that is bad about the others, at once."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from strop.errors import TaskError
from strop.tasks import Task, load_task

WriteTask = Callable[..., Path]
SHARES = {"select": 0.5, "test": 0.5}


def rows_of(count: int = 12) -> list[dict[str, Any]]:
    return [
        {
            "prompt": f"p{i}",
            "answer": f" a{i}",
            "id": f"r{i}",
            "number": i,
            "lang": ("en", "de")[i % 2],
            "kept": i > 3,
            "meta": {"id": i // 2, "kind": f"k{i % 3}"},
        }
        for i in range(1, count + 1)
    ]


def numbers(task: Task) -> set[int]:
    return {example.row for split in task.counts for example in task.examples(split)}


def refusal(path: Path) -> str:
    with pytest.raises(TaskError) as raised:
        load_task(path)
    return str(raised.value)


@pytest.mark.parametrize(
    ("keys", "left"),
    [
        ({"skip": [1, 3]}, {2, 4, 5, 6, 7, 8, 9, 10, 11, 12}),
        ({"skip": 12}, set(range(1, 12))),
        ({"skip": {"id": ["r2", "r5"]}}, {1, 3, 4, 6, 7, 8, 9, 10, 11, 12}),
        ({"skip": {"id": "r2", "number": [7, "8"]}}, {1, 3, 4, 5, 6, 9, 10, 11, 12}),
        ({"skip": {"meta.kind": ["k0", "k1"]}}, {2, 5, 8, 11}),
        ({"where": "lang == 'de'"}, {1, 3, 5, 7, 9, 11}),
        ({"where": "kept and number % 2 == 0"}, {4, 6, 8, 10, 12}),
        ({"where": "meta.kind in ['k0', 'k1'] and lang != 'en'", "skip": [3]}, {1, 7, 9}),
    ],
    ids=str,
)
def test_rows_are_left_out_by_name_and_by_condition(
    write_task: WriteTask, keys: dict[str, Any], left: set[int]
) -> None:
    assert numbers(load_task(write_task(rows_of(), splits=SHARES, **keys))) == left


def test_what_is_left_out_is_part_of_what_a_task_is(write_task: WriteTask) -> None:
    prints = {
        load_task(write_task(rows_of(), splits=SHARES, **keys)).fingerprint
        for keys in ({}, {"skip": [1]}, {"skip": [2]}, {"where": "kept"}, {"where": "kept", "skip": [8]})
    }
    assert len(prints) == 5


def test_a_row_that_is_left_out_need_not_fit(write_task: WriteTask) -> None:
    rows = rows_of()
    rows[1]["answer"], rows[4]["answer"] = "", None
    assert "row 2: the answer is empty" in refusal(write_task(rows, splits=SHARES))
    assert 2 not in numbers(load_task(write_task(rows, splits=SHARES, skip=[2, 5])))
    assert 5 not in numbers(load_task(write_task(rows, splits=SHARES, where="answer is not none and answer != ''")))


def test_names_may_stand_in_one_of_several_files(write_task: WriteTask, tmp_path: Path) -> None:
    write_task(rows_of()[:6], file="a.jsonl")
    files = {"select": "a.jsonl", "test": "b.jsonl"}
    path = write_task(rows_of()[6:], file="b.jsonl", data=None, splits={"files": files}, skip={"id": ["r2", "r12"]})
    assert load_task(path).counts == {"select": 5, "test": 5}


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"skip": [3, 99]}, "skip: names row 99, which {data} has not; correct it or leave it out."),
        ({"skip": {"id": ["r1", "r99"]}}, "skip: names id 'r99', which {data} has not; correct it or leave it out."),
        ({"where": "number > 99"}, "{data}: skip: and where: leave none of its 12 rows; let some pass."),
        (
            {"skip": {"name": "r1"}},
            "{data}, row 1: skip: names the column 'name', which is not there; the row has prompt, answer, id, number, lang, "
            "kept, meta; 11 more rows do not fit, and strop task check {task} lists them.",
        ),
        (
            {"where": "language == 'en'"},
            "{data}, row 1: the condition in where: needs a column that is not there ('language' is undefined); the row has "
            "prompt, answer, id, number, lang, kept, meta; 11 more rows do not fit, and strop task check {task} lists them.",
        ),
        (
            {"where": "lang"},
            "{data}, row 1: the condition in where: gives 'de', which is neither true nor false; compare it, as in where: "
            "lang == 'en'; 11 more rows do not fit, and strop task check {task} lists them.",
        ),
        ({"where": "number / 0 == 1"}, "{data}, row 1: the condition in where: failed: division by zero; 11 more rows"),
        (
            {"where": "range(99999)|map('string')|join == ''"},
            "{data}, row 1: the condition in where: computes more than a prompt needs; shorten its loops and what it repeats.",
        ),
    ],
    ids=str,
)
def test_what_leaves_nothing_or_names_nothing_is_refused(
    write_task: WriteTask, tmp_path: Path, keys: dict[str, Any], said: str
) -> None:
    path = write_task(rows_of(), splits=SHARES, **keys)
    assert said.format(data=tmp_path / "data.jsonl", task=path) in refusal(path)


def test_one_refusal_says_how_many_rows_are_bad(write_task: WriteTask, tmp_path: Path) -> None:
    rows = rows_of(300)
    for row in rows[2:208]:
        row["answer"] = ""
    said = "row 3: the answer is empty; fill its column or drop the row"
    assert refusal(path := write_task(rows)) == (
        f"{tmp_path / 'data.jsonl'}, {said}; 205 more rows do not fit, and strop task check {path} lists them."
    )
    for row in rows[4:208]:
        row["answer"] = " x"
    assert refusal(write_task(rows)).endswith("1 more row does not fit, and strop task check " + f"{path} lists them.")
    rows[3]["answer"] = " x"
    assert refusal(write_task(rows)) == f"{tmp_path / 'data.jsonl'}, {said}."
    with pytest.raises(TaskError, match="1 more row does not fit, and strop.check_task lists them"):
        load_task([{"prompt": "p", "answer": ""}, {"prompt": "q", "answer": ""}])


def test_groups_and_categories_are_fields_of_an_object_or_templates(write_task: WriteTask) -> None:
    path = write_task(rows_of(), splits=SHARES, group="meta.id", category="{{ lang }}-{{ meta.kind }}")
    task = load_task(path)
    found = {
        example.row: (example.group, example.category) for split in task.counts for example in task.examples(split)
    }
    assert found[4] == ("2", "de-k1" if rows_of()[3]["lang"] == "de" else "en-k1")
    assert found[5][0] == found[4][0]
    assert "names the column 'meta.ids', which is not there" in refusal(write_task(rows_of(), group="meta.ids"))
    assert "group: column 'meta': an object names nothing" in refusal(write_task(rows_of(), group="meta"))


@pytest.mark.parametrize(
    ("columns", "hint"),
    [
        ({"question": "q", "answer": " a"}, "; write {{ question }}"),
        ({"instruction": "q", "input": "", "output": " a"}, "; write {{ input }}"),
        ({"prompts": "q", "answer": " a"}, "; write {{ prompts }}"),
        ({"prompt": "q", "target": " a"}, "; write {{ target }}"),
        ({"prompt": "q", "label": " a"}, "; write {{ label }}"),
        ({"prompt": "q", "z": " a"}, "the row has prompt, z; "),
    ],
)
def test_a_column_that_is_not_there_is_looked_for(write_task: WriteTask, columns: dict[str, str], hint: str) -> None:
    assert hint in refusal(write_task([columns] * 3))


def test_choices_are_a_column_that_holds_a_list(write_task: WriteTask) -> None:
    rows = [
        {
            "q": f"q{i}",
            "options": ["red", "blue", f"c{i}"],
            "label": i % 3,
            "letter": "ABC"[i % 3],
            "m": {"o": ["x", "red"]},
        }
        for i in range(10)
    ]
    for answer in (" {{ options[label] }}", " {{ options['ABC'.index(letter)] }}"):
        task = load_task(write_task(rows, score="choice", prompt="{{ q }}", answer=answer, choices="options"))
        example = next(e for split in task.counts for e in task.examples(split) if e.row == 5)
        assert (example.answer, example.choices) == (" blue", (" red", " blue", " c4"))
    nested = load_task(write_task(rows, score="choice", prompt="{{ q }}", answer="red", choices="m.o")).examples("test")
    assert nested[0].choices == ("x", "red")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("red", "row 1: column 'options' is not a list of choices; it holds a value of type str"),
        (None, "row 1: column 'options' is not a list of choices; it holds nothing"),
        (["red", None], "row 1: column 'options' is not a list of choices; its entry 2 is nothing"),
        (["red", 3], "row 1: column 'options' is not a list of choices; its entry 2 is a number"),
        (["red", "red"], "row 1: two choices are the same text"),
        (["red", " red"], "row 1: two choices are the same text"),
        (["blue", "green"], "row 1: the answer ' red' is not one of the choices [' blue', ' green']"),
        (["red"], "row 1: a row needs two choices or more, and has 1; add some or drop the row"),
        ([], "row 1: a row needs two choices or more, and has 0; add some or drop the row"),
    ],
    ids=str,
)
def test_a_column_that_holds_no_choices_is_refused(write_task: WriteTask, options: Any, said: str) -> None:
    rows = [{"prompt": f"p{i}", "answer": " red", "options": options} for i in range(5)]
    assert said in refusal(write_task(rows, score="choice", choices="options"))
