"""A task as Python objects: rows, data sets, mappings, names and paths, through one door."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import strop
from strop.errors import TaskError
from strop.proving import RecipePair, compare_recipes
from strop.recipe import Recipe
from strop.scoring import evaluate_paraphrases
from strop.tasks import load_task

ROWS = [{"prompt": f"{n} + 1 =", "answer": f" {n + 1}"} for n in range(10)]
SPLITS = {"select": 0.4, "test": 0.6}


def as_dataset(rows: list[dict[str, Any]]) -> Any:
    import datasets

    return datasets.Dataset.from_list(rows)


@pytest.mark.parametrize("give", [list, tuple, as_dataset], ids=lambda give: give.__name__)
def test_rows_are_dealt_as_those_of_a_file_are(tmp_path: Path, give: Callable[[Any], Any]) -> None:
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    (tmp_path / "rows.yaml").write_text("name: rows\ndata: rows.jsonl\n")
    by_file, given = load_task(tmp_path / "rows.yaml"), load_task(give(ROWS))
    assert given.splits == by_file.splits
    assert (given.name, given.fingerprint) == ("rows", by_file.fingerprint)


def test_a_mapping_has_the_keys_of_a_task_file() -> None:
    rows = [{"q": f"{n}", "a": f"{n % 3}", "kind": "odd" if n % 2 else "even"} for n in range(10)]
    keys = {"prompt": "Q{{ q }}", "answer": " {{ a }}", "category": "kind", "score": "first_token", "splits": SPLITS}
    task = load_task({"name": "made", "data": rows, **keys})
    assert (task.name, task.score, task.counts) == ("made", "first_token", {"select": 4, "test": 6})
    assert {example.category for example in task.examples("test")} <= {"odd", "even"}
    assert rows[0] == {"q": "0", "a": "0", "kind": "even"}


def test_each_split_may_be_given_its_own_rows(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, ROWS[:2])))
    files = {"train": tmp_path / "train.jsonl", "select": ROWS[2:5], "test": as_dataset(ROWS[5:])}
    task = load_task({"name": "made", "splits": {"files": files}})
    assert task.counts == {"train": 2, "select": 3, "test": 5}
    assert [example.prompt for example in task.examples("test")] == [row["prompt"] for row in ROWS[5:]]
    with pytest.raises(TaskError, match=r"splits\.files\.test, row 2: the answer has no value"):
        load_task({"name": "made", "splits": {"files": {**files, "test": [ROWS[9], {"prompt": "x", "answer": None}]}}})


def test_a_path_in_a_mapping_starts_from_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    monkeypatch.chdir(tmp_path)
    for data in ("rows.jsonl", Path("rows.jsonl"), tmp_path / "rows.jsonl"):
        assert load_task({"name": "made", "data": data, "splits": SPLITS}).counts == {"select": 4, "test": 6}


def test_a_data_set_that_was_filtered_gives_the_rows_that_are_left() -> None:
    chosen = as_dataset(ROWS).filter(lambda row: row["prompt"] > "5").select([3, 1, 0])
    task = load_task({"name": "made", "data": chosen, "splits": {"select": 0.4, "test": 0.6}})
    assert sorted(e.prompt for split in task.splits.values() for e in split) == ["5 + 1 =", "6 + 1 =", "8 + 1 ="]


def test_a_picture_beside_the_text_is_left_alone() -> None:
    import datasets

    pictures = as_dataset([{**row, "image": {"bytes": b"no picture", "path": "a.png"}} for row in ROWS])
    features = datasets.Features({**pictures.features, "image": datasets.Image()})
    given = datasets.Dataset(pictures.data, info=datasets.DatasetInfo(features=features))
    assert load_task(given).counts == {"select": 2, "test": 8}


def test_a_task_is_itself() -> None:
    task = load_task("int-mult")
    assert load_task(task) is task
    assert load_task(Path("int-mult")) == task


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ([], "data holds no rows"),
        ([7], "data, row 1 is of type int, not a dict with named columns"),
        ([*ROWS, "text"], "data, row 11 is of type str"),
        ([{1: "a"}], "data, row 1: a column is named by a text, not by '1'"),
        ((row for row in ROWS), "data is of type generator; give a list of dicts, a datasets.Dataset or a path."),
        (7, "data is of type int; give a list of dicts, a datasets.Dataset or a path"),
        ({"data": ROWS}, "The task, key name: Field required"),
        ({"name": "t", "data": ROWS, "promt": ""}, "The task, key promt: there is no such key"),
        ({"name": "t", "data": ROWS, "splits": {"files": {"select": ROWS, "test": ROWS}}}, "either data names one source"),
        ({"name": "t", "data": {"prompt": ["a"]}}, "data is of type dict; give a list of dicts"),
        ({"name": "t", "data": "gone.jsonl"}, "There is no data file gone.jsonl"),
    ],
)  # fmt: skip
def test_what_is_no_task_is_refused_in_a_sentence(source: Any, said: str) -> None:
    with pytest.raises(TaskError) as raised:
        load_task(source)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_frame_and_a_dict_of_splits_are_told_how_to_be_given() -> None:
    import datasets
    import pandas

    with pytest.raises(
        TaskError, match=r"is of type DataFrame; give a list of dicts, .* such as df\.to_dict\('records'\)"
    ):
        load_task(pandas.DataFrame(ROWS))  # type: ignore[arg-type]
    with pytest.raises(TaskError, match=r"a mapping of data sets \(train, validation\); name each by what it is for"):
        load_task(datasets.DatasetDict({"train": as_dataset(ROWS), "validation": as_dataset(ROWS)}))


@pytest.mark.parametrize("name", ["~nobody-here/task.yaml", "x" * 5000, "a\nb", "\ud83d.yaml", "a\0.yaml"])
def test_a_name_that_no_file_can_have_is_refused_in_a_sentence(name: str) -> None:
    with pytest.raises(TaskError) as raised:
        load_task(name)
    message = str(raised.value)
    assert "\n" not in message
    assert len(message) < 500
    message.encode()


@pytest.mark.parametrize("act", ["evaluate", "search", "prune", "sharpen", "train"])
def test_every_door_takes_a_name_a_path_and_rows(act: str, tiny: Callable[..., Any], small_tokenizer: Any) -> None:
    call = getattr(strop, act)
    for task, said in (
        ("no-such-task", "There is no task 'no-such-task'"),
        (Path("gone.yaml"), r"The task file gone\.yaml cannot be read"),
        ([{"prompt": "a", "answer": None}], "data, row 1: the answer has no value"),
    ):
        with pytest.raises(TaskError, match=said):
            call(tiny("llama"), small_tokenizer, task)


def test_the_doors_of_rooms_take_what_load_task_takes(tiny: Callable[..., Any], small_tokenizer: Any) -> None:
    model, rows = tiny("llama"), [{**row, "others": [f"{row['prompt']} "]} for row in ROWS]
    pair = RecipePair(Recipe.of(model, []), Recipe.of(model, []))
    assert compare_recipes(model, small_tokenizer, ROWS, pair).task == "rows"
    asked = evaluate_paraphrases(model, small_tokenizer, {"name": "made", "data": rows, "paraphrases": "others"})
    assert asked.count == 8


def test_rows_are_scored_as_a_task_of_them_is(tiny: Callable[..., Any], small_tokenizer: Any) -> None:
    model = tiny("llama")
    by_rows = strop.evaluate(model, small_tokenizer, ROWS)
    by_task = strop.evaluate(model, small_tokenizer, load_task(ROWS))
    assert by_rows.figures == by_task.figures
    assert by_rows.figures.count == 8


def test_rows_that_a_transform_makes_are_not_read_without_it() -> None:
    shouting = as_dataset(ROWS).with_transform(
        lambda batch: {name: [f"{text}!" for text in texts] for name, texts in batch.items()}
    )
    with pytest.raises(
        TaskError,
        match=r"^This datasets.Dataset has a transform \(with_transform, set_transform\), and its rows are stored without it; "
        r"give list\(dataset\), or use dataset.map.$",
    ):
        load_task(shouting)
    assert all(example.prompt.endswith("=!") for example in load_task(list(shouting)).examples("test"))
