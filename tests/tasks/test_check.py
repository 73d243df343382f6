"""What a task makes of its rows, all at once: bad ones, lengths, frequent answers, repeats, contradictions."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from strop.errors import TaskError
from strop.report import bad_row_lines, example_lines, rows_in_lines, task_lines, task_table
from strop.tasks import BadRow, check_task, load_task

WriteTask = Callable[..., Path]


def rows_of(count: int) -> list[dict[str, Any]]:
    return [
        {"prompt": f"p{i}", "answer": (" yes", " no", " yes")[i % 3], "kind": "ab"[i % 2], "who": i // 2}
        for i in range(count)
    ]


def test_every_bad_row_is_there_with_its_reason(write_task: WriteTask, tmp_path: Path) -> None:
    rows = rows_of(300)
    for row in rows[2:208]:
        row["answer"] = ""
    rows[250]["answer"] = None
    del rows[251]["prompt"]
    found = check_task(write_task(rows))
    assert (found.fits, len(found.bad), found.problem) == (False, 208, None)
    assert [row.row for row in found.bad] == [*range(3, 209), 251, 252]
    source = str(tmp_path / "data.jsonl")
    assert found.bad[0] == BadRow(source, 3, "the answer is empty; fill its column or drop the row.")
    assert "column 'answer' is empty" in found.bad[206].problem
    assert "needs a column that is not there ('prompt' is undefined)" in found.bad[207].problem
    assert sum(split.examples for split in found.splits) == found.distinct == 92
    lines = bad_row_lines(found.bad)
    assert lines[0] == "208 rows cannot be used:"
    assert lines[1] == (
        f"  {source}, rows 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, … (206 rows): the answer is empty; fill its column or "
        "drop the row."
    )
    assert lines[2].startswith(f"  {source}, row 251: ")
    assert len(lines) == 4
    assert f"{source}: 92 examples, 208 bad" in task_lines(found)


def test_many_kinds_of_problem_are_cut(tmp_path: Path) -> None:
    bad = [BadRow("d.jsonl", row, f"the value {'x' * row} is odd.") for row in range(1, 31)]
    lines = bad_row_lines(bad)
    assert len(lines) == 22
    assert (lines[0], lines[-1]) == ("30 rows cannot be used:", "  … and 10 more kinds of problem")
    assert rows_in_lines([str(row) for row in bad])[-1] == "  … and 10 more"
    assert bad_row_lines([]) == rows_in_lines([]) == []
    assert bad_row_lines(bad[:1])[0] == "1 row cannot be used:"


def test_what_the_rows_hold_is_counted(write_task: WriteTask, tmp_path: Path) -> None:
    rows = [*rows_of(30), *rows_of(4), {"prompt": "p3", "answer": " perhaps", "kind": "a", "who": 1}]
    path = write_task(rows, group="who", category="kind", skip=[1], where="prompt != 'p29'")
    found = check_task(path)
    assert (found.fits, found.distinct, found.repeated) == (True, 30, 3)
    (source,) = found.sources
    assert (source.examples, source.bad, source.skipped, source.left_out) == (33, 0, 1, 1)
    assert found.prompt_characters is not None
    assert (found.prompt_characters.fewest, found.prompt_characters.median, found.prompt_characters.most) == (2, 3, 3)
    assert found.answer_characters is not None
    assert (found.answer_characters.fewest, found.answer_characters.most) == (3, 8)
    assert found.common_answers[:2] == ((" yes", 19), (" no", 10))
    assert [(c.prompt, set(c.answers), set(c.rows)) for c in found.contradictions] == [
        ("p3", {" yes", " perhaps"}, {4, 35})
    ]
    assert {split.name: split.examples for split in found.splits} == load_task(path).counts
    assert [split.categories for split in found.splits] == [2, 2]
    table = task_table(found)
    assert table.title == "made: score exact, 30 examples"
    assert [row[:2] for row in table.rows] == [(split.name, str(split.examples)) for split in found.splits]
    lines = "\n".join(task_lines(found))
    assert f"{tmp_path / 'data.jsonl'}: 33 examples, 1 skipped by skip:, 1 left out by where:" in lines
    assert "prompts: 2 to 3 characters, half of them 3 or fewer" in lines
    assert "most frequent answers: ' yes' 63.3 %, ' no' 33.3 %, ' perhaps' 3.3 %" in lines
    assert "3 rows repeat an earlier prompt and answer; each is kept once" in lines
    assert "1 prompt has several answers, such as 'p3': ' yes', ' perhaps' (rows 4, 35)" in lines


def test_the_border_of_an_example_is_shown(write_task: WriteTask) -> None:
    rows = [{"prompt": "one\nline:", "answer": f" {i}"} for i in range(9)]
    found = check_task(write_task(rows, chat=True))
    assert found.example is not None
    first, shown, *rest = example_lines(found)
    assert (first, shown) == (
        f"row {found.example.row}, prompt and answer, parted by |:", f"  one\\nline:| {found.example.row - 1}",
    )  # fmt: skip
    assert rest == ["  (in the chat template)"]


def test_a_task_that_cannot_be_dealt_says_so_beside_its_rows(write_task: WriteTask) -> None:
    found = check_task(write_task([{"prompt": "p", "answer": " a", "g": 1}] * 3, group="g"))
    assert (found.fits, found.splits, found.task, found.example) == (False, (), None, None)
    assert found.problem is not None
    assert found.problem.startswith("1 examples in 1 groups leave the")


def test_a_task_without_a_good_row_is_checked(write_task: WriteTask) -> None:
    found = check_task(write_task([{"prompt": "p", "answer": ""}] * 3))
    assert (found.distinct, found.prompt_characters, len(found.bad)) == (0, None, 3)
    assert example_lines(found) == []
    json.dumps(found.to_json())


def test_a_bomb_is_met_once_and_not_for_every_row(write_task: WriteTask) -> None:
    with pytest.raises(TaskError, match=r"row 1: the template in prompt: computes more than a prompt needs"):
        check_task(write_task(rows_of(100), prompt="{{ 'a' * 10**9 }}"))


def test_rows_and_builtin_names_are_checked_too() -> None:
    assert check_task("int-mult").fits
    assert [row.source for row in check_task([{"prompt": "p", "answer": ""}]).bad] == ["data"]


def test_examples_that_no_split_holds_are_told(write_task: Callable[..., Path]) -> None:
    rows = [{"prompt": f"Item {number} is", "answer": " red", "kind": "ab"[number % 10 == 0]} for number in range(30)]
    found = check_task(write_task(rows, category="kind", per_category=10))
    assert task_table(found).title == "made: score exact, 13 examples"
    assert "17 are in no split: a category has more than per_category, or another split has them too" in task_lines(
        found
    )
    assert not any("no split" in line for line in task_lines(check_task(write_task(rows))))


def test_where_no_row_can_be_used_its_rows_say_all(write_task: Callable[..., Path]) -> None:
    found = check_task(write_task([{"prompt": "Item is", "answer": ""}, {"prompt": "Item was", "answer": ""}]))
    assert (found.fits, len(found.bad), found.problem, found.splits, found.distinct) == (False, 2, None, (), 0)
