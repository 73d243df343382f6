"""GLUE: the columns, labels, metrics and splits of the paper's protocol, from a local copy in the hub's layout."""

from collections.abc import Callable
from pathlib import Path

import pytest

from strop.errors import TaskError
from strop.tasks import Task, load_task

EXPECTED = {
    "mnli": ("premise", "hypothesis", ("entailment", "neutral", "contradiction"), "accuracy"),
    "sst2": ("sentence", None, ("negative", "positive"), "accuracy"),
    "mrpc": ("sentence1", "sentence2", ("not_equivalent", "equivalent"), "accuracy"),
    "cola": ("sentence", None, ("unacceptable", "acceptable"), "matthews"),
    "qnli": ("question", "sentence", ("entailment", "not_entailment"), "accuracy"),
    "qqp": ("question1", "question2", ("not_duplicate", "duplicate"), "accuracy"),
    "rte": ("sentence1", "sentence2", ("entailment", "not_entailment"), "accuracy"),
    "stsb": ("sentence1", "sentence2", (), "pearson"),
}


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_texts_labels_and_metric_are_those_of_the_task(builtin: Callable[[str], Task], name: str) -> None:
    first, second, names, metric = EXPECTED[name]
    task = builtin(f"glue-{name}")
    assert task.name == f"glue-{name}"
    assert task.labels is not None
    assert (task.score, task.labels.names, task.labels.metric, task.labels.max_tokens) == ("label", names, metric, 256)
    for split in ("train", "select", "test"):
        for example in task.examples(split):
            row = example.columns
            assert example.prompt == row[first]
            assert example.pair == (row[second] if second else None)
            assert task.labels.target(example.answer) == row["label"]


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_train_is_train_and_the_validation_rows_are_halved(builtin: Callable[[str], Task], name: str) -> None:
    task = builtin(f"glue-{name}")
    assert task.counts == {"train": 20, "select": 4, "test": 5}
    held = {example.columns["idx"] for split in ("select", "test") for example in task.examples(split)}
    assert held == set(range(9))
    assert [example.columns["idx"] for example in task.examples("train")] == list(range(20))


@pytest.mark.parametrize(("held", "select"), [(5000, 2500), (5001, 1000), (1043, 521)])
def test_select_gets_a_thousand_rows_of_more_than_five_thousand_else_half(
    glue: Path, glue_writer: Callable[..., None], held: int, select: int
) -> None:
    glue_writer(glue, "cola", held=held)
    assert load_task("glue-cola").counts == {"train": 20, "select": select, "test": held - select}


def test_the_seed_deals_the_held_rows(glue: Path, tmp_path: Path) -> None:
    def rows(seed: int) -> list[int]:
        path = tmp_path / f"{seed}.yaml"
        path.write_text(
            "name: own\nscore: label\nprompt: '{{ sentence }}'\nanswer: \"{{ ['no', 'yes'][label] }}\"\n"
            'labels: ["no", "yes"]\nsplits: {files: {held: "hf://nyu-mll/glue:cola#validation"}, held_select: 3, '
            f"seed: {seed}}}\n"
        )
        task = load_task(path)
        assert task.counts == {"select": 3, "test": 6}
        return [example.columns["idx"] for example in task.examples("select")]

    assert rows(42) == rows(42) != rows(43)


def test_a_row_without_a_label_is_refused(glue: Path, glue_writer: Callable[..., None]) -> None:
    import pyarrow.parquet

    path = glue / "nyu-mll" / "glue" / "stsb" / "validation-00000-of-00001.parquet"
    table = pyarrow.parquet.read_table(path).to_pylist()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([{**row, "label": -1.0} for row in table]), path)
    with pytest.raises(TaskError, match=r"stsb#validation, row 1: the answer is empty; fill its column or drop"):
        load_task("glue-stsb")


def test_a_train_row_that_is_held_out_too_is_dropped_and_a_pair_tells_rows_apart(glue: Path) -> None:
    import pyarrow.parquet

    folder = glue / "nyu-mll" / "glue" / "rte"
    rows = [{"sentence1": "The same.", "sentence2": f"Another {number}.", "label": 0} for number in range(4)]
    for split, chosen in (("train", rows), ("validation", rows[2:])):
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(chosen), folder / f"{split}-00000-of-00001.parquet")
    task = load_task("glue-rte")
    assert task.counts == {"train": 2, "select": 1, "test": 1}
    assert [example.pair for example in task.examples("train")] == ["Another 0.", "Another 1."]
