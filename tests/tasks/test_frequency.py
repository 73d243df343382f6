"""How often the training data held a fact: a column of the task file."""

from typing import Any

import pytest
from tests.fixtures.task_files import WriteTask

from strop.errors import TaskError
from strop.tasks import load_task

ROWS: list[dict[str, Any]] = [
    {"prompt": f"{n} + 1 =", "answer": f" {n + 1}", "seen": None if n == 3 else n, "meta": {"views": str(n)}}
    for n in range(20)
]


@pytest.mark.parametrize(("keys", "third"), [({"frequency": "seen"}, None), ({"popularity": "meta.views"}, 3.0)])
def test_a_column_or_a_field_says_it(write_task: WriteTask, keys: dict[str, str], third: float | None) -> None:
    task = load_task(write_task(ROWS, **keys))
    found = {example.row - 1: example.frequency for split in task.splits.values() for example in split}
    assert found == {n: third if n == 3 else float(n) for n in range(20)}


def test_nothing_else_of_a_task_changes(write_task: WriteTask) -> None:
    with_it = load_task(write_task(ROWS, frequency="seen"))
    without = load_task(write_task(ROWS))
    assert with_it.fingerprint == without.fingerprint
    assert [e.prompt for e in with_it.examples("test")] == [e.prompt for e in without.examples("test")]
    assert {e.frequency for e in without.examples("test")} == {None}


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (-1, "column 'seen': a frequency is a number of 0 or more, and it holds '-1'; correct it or drop the row."),
        ("many", "and it holds 'many'; correct it"),
        (True, "and it holds true; correct it"),
        ([1], "and it holds a list; correct it"),
    ],
)
def test_what_counts_nothing_is_refused(write_task: WriteTask, value: object, said: str) -> None:
    rows = [*ROWS[:10], {**ROWS[10], "seen": value}, *ROWS[11:]]
    with pytest.raises(TaskError) as error:
        load_task(write_task(rows, frequency="seen"))
    assert "row 11: frequency: " in str(error.value)
    assert said in str(error.value)


def test_a_missing_column_and_a_second_name_are_told(write_task: WriteTask) -> None:
    with pytest.raises(TaskError, match=r"row 1: frequency: .*sen"):
        load_task(write_task(ROWS, frequency="sen"))
    with pytest.raises(TaskError, match="key popularity: there is no such key; write frequency"):
        load_task(write_task(ROWS, frequency="seen", popularity="seen"))
    with pytest.raises(TaskError, match="key pageviews: there is no such key; write frequency"):
        load_task(write_task(ROWS, pageviews="seen"))


def test_the_built_in_facts_say_it() -> None:
    example = load_task("world-facts").examples("test")[0]
    assert example.frequency == example.columns["popularity"]
