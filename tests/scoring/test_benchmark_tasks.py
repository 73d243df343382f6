"""The ReFT paper's benchmarks: its prompts and measures, from a local copy in LLM-Adapters' layout."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import pytest
from tests.fixtures.task_files import LLM_ADAPTERS

from strop.errors import TaskError
from strop.tasks import Task, load_task
from strop.tasks.extraction import extract, is_right
from strop.tasks.rows import read_rows

ARITHMETIC = ("addsub", "aqua", "gsm8k", "mawps", "svamp")
commonsense = pytest.mark.parametrize("name", sorted({*LLM_ADAPTERS} - {*ARITHMETIC}))
arithmetic = pytest.mark.parametrize("name", ARITHMETIC)


@commonsense
def test_a_commonsense_task_asks_and_answers_as_the_paper_does(builtin: Callable[[str], Task], name: str) -> None:
    task = builtin(name)
    assert (task.name, task.score) == (name, "generate")
    assert task.generate is not None
    assert (task.generate.max_new_tokens, task.generate.match) == (32, "equal")
    for example in task.examples("test"):
        assert example.prompt == example.columns["instruction"] + "\n"
        assert example.answer == f"the correct answer is {example.gold}"
        assert example.gold == example.columns["answer"]
        assert is_right(extract(example.answer, task.generate), example.gold, task.generate)
        assert not is_right(extract(example.gold, task.generate), example.gold, task.generate)  # without the trigger
        assert not is_right(extract(example.answer + " or so", task.generate), example.gold, task.generate)


@arithmetic
def test_an_arithmetic_task_asks_and_answers_as_the_paper_does(builtin: Callable[[str], Task], name: str) -> None:
    task = builtin(name)
    assert task.generate is not None
    for example in task.examples("test"):
        assert example.prompt == (
            "Below is an instruction that describes a task. Write a response that appropriately completes the request."
            f"\n\n### Instruction:\n{example.columns['instruction']}\n\n### Response:\n"
        )
        assert example.answer == example.columns["output"]
        assert example.gold == example.columns["answer"]
        written = f"(1) All told: it is {example.gold}" if name != "aqua" else f"it is ({example.gold}), not A"
        assert is_right(extract(written, task.generate), example.gold, task.generate)
        assert not is_right(extract("it is so", task.generate), example.gold, task.generate)


@pytest.mark.parametrize("name", sorted(LLM_ADAPTERS))
def test_select_is_the_last_300_rows_of_train_and_test_is_apart(builtin: Callable[[str], Task], name: str) -> None:
    task = builtin(name)
    assert (task.name, task.counts) == (name, {"train": 10, "select": 300, "test": 6})
    folder = LLM_ADAPTERS[name]
    questions = {split: [e.columns["instruction"] for e in task.examples(split)] for split in task.counts}
    assert questions["train"] + questions["select"] == [f"{folder} train {number}?" for number in range(310)]
    test = f"test_{name}" if folder == "math" else "test"
    assert questions["test"] == [f"{folder} {test} {number}?" for number in range(6)]


def test_a_question_that_stands_in_test_is_dropped_from_the_others_however_it_is_answered(llm_adapters: Path) -> None:
    path = llm_adapters / "math" / "train.json"
    rows = json.loads(path.read_text())
    for number, row in ((0, rows[0]), (1, rows[-1])):
        row["instruction"] = f"math test_svamp {number}?"
    path.write_text(json.dumps(rows))
    assert load_task("svamp").counts == {"train": 9, "select": 299, "test": 6}
    assert load_task("addsub").counts == {"train": 10, "select": 300, "test": 6}


def test_mixed_training_rows_keep_their_letters_and_an_empty_reasoning_gives_way_to_the_answer(
    llm_adapters: Path,
) -> None:
    path = llm_adapters / "math" / "train.json"
    rows = json.loads(path.read_text())
    rows[1]["output"] = " "
    path.write_text(json.dumps(rows))
    first, second = load_task("mawps").examples("train")[:2]
    assert (first.gold, second.gold, second.answer) == ("A", "1.0", "The answer is 1.0.")


def test_an_answer_that_is_a_list_of_one_letter_is_that_letter(llm_adapters: Path) -> None:
    path = llm_adapters / "AQuA" / "test.json"
    rows = json.loads(path.read_text())
    path.write_text(json.dumps([{**row, "answer": [row["answer"]]} for row in rows]))
    assert [example.gold for example in load_task("aqua").examples("test")] == [row["answer"] for row in rows]


def test_a_copy_of_the_repository_serves_as_it_is(
    llm_adapters: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = load_task("boolq").fingerprint
    copy = tmp_path / "other" / "AGI-Edgerunners" / "LLM-Adapters" / "dataset"
    copy.mkdir(parents=True)
    (llm_adapters / "boolq").rename(copy / "boolq")
    monkeypatch.setenv("STROP_DATA", str(tmp_path / "other"))
    assert load_task("boolq").fingerprint == before
    monkeypatch.setenv("STROP_DATA", str(copy))
    assert load_task("boolq").fingerprint == before


def test_a_split_may_name_a_file_among_others_of_its_kind(llm_adapters: Path, tmp_path: Path) -> None:
    rows = read_rows("hf://some/math#test_svamp[:2]", relative_to=tmp_path)
    assert [row["instruction"] for row in rows] == ["math test_svamp 0?", "math test_svamp 1?"]
    assert len(read_rows("hf://some/math#test", relative_to=tmp_path)) == 18


def test_the_hub_is_asked_for_the_folder_inside_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, ...]] = []

    def hub(place: str, config: str | None, *, split: str | None, data_dir: str) -> datasets.Dataset:
        asked.append((place, config, split, data_dir))
        row = {"instruction": str(split), "output": "the correct answer is true", "answer": "true"}
        return datasets.Dataset.from_list([row])

    monkeypatch.setattr(
        "datasets.load_dataset_builder",
        lambda *_, **__: SimpleNamespace(name="parquet", info=SimpleNamespace(builder_name="parquet")),
    )
    monkeypatch.setattr("datasets.load_dataset", hub)
    load_task("boolq")
    splits = ("train[:-300]", "train[-300:]", "test")
    assert asked == [("AGI-Edgerunners/LLM-Adapters", None, split, "dataset/boolq") for split in splits]


def test_without_hub_or_copy_the_sentence_names_the_whole_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*arguments: object, **rest: object) -> None:
        raise ConnectionError("Couldn't reach it")

    monkeypatch.setattr("datasets.load_dataset_builder", unreachable)
    with pytest.raises(TaskError) as raised:
        load_task("gsm8k")
    assert "The data set hf://AGI-Edgerunners/LLM-Adapters/dataset/gsm8k#train[:-300] is not under" in str(raised.value)
    assert str(raised.value).endswith(
        "put there by hf download AGI-Edgerunners/LLM-Adapters --repo-type dataset --local-dir "
        "FOLDER/AGI-Edgerunners/LLM-Adapters."
    )
