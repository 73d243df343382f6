"""COPA, CB and RTE: the paper's prompts and labels, from a local copy, and one sentence where there is none."""

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import pytest

import strop
from strop.errors import TaskError
from strop.scoring.encoding import encode
from strop.tasks import Task, load_task

LABELS = {
    "copa": (" 1", " 2"),
    "cb": (" entails", " contradicts", " is neutral"),
    "rte": (" entails", " contradicts"),
}
PROMPTS = {
    "copa": (
        "Premise: copa validation 1 got wet.\n"
        "What happened as a result?\n"
        "\n"
        "Alternative 1: It rained.\n"
        "Alternative 2: It dried.\n"
        "\n"
        "What is the correct alternative?\n"
        "The correct alternative is alternative"
    ),
    "cb": (
        "Premise: cb validation 1 got wet.\n"
        "\n"
        "Hypothesis: Number 1 was dry.\n"
        "\n"
        "Does the premise entail, contradict or is neutral to the hypothesis?\n"
        "Answer (entails, contradicts, is neutral): The premise"
    ),
    "rte": (
        "Premise: rte validation 1 got wet.\n"
        "\n"
        "Hypothesis: Number 1 was dry.\n"
        "\n"
        "Does the premise entail or contradict to the hypothesis?\n"
        "Answer (entails or contradicts): The premise"
    ),
}
every_task = pytest.mark.parametrize("name", sorted(LABELS))


@every_task
def test_the_prompt_is_the_papers(builtin: Callable[[str], Task], name: str) -> None:
    example = builtin(name).examples("test")[1]
    assert example.prompt == PROMPTS[name]


def test_copa_asks_for_the_cause_or_for_the_result(builtin: Callable[[str], Task]) -> None:
    cause, effect, *_ = (example.prompt.splitlines()[1] for example in builtin("copa").examples("test"))
    assert (cause, effect) == ("What was the cause of this?", "What happened as a result?")


@every_task
def test_each_label_number_has_its_own_answer(builtin: Callable[[str], Task], name: str) -> None:
    task = builtin(name)
    assert task.name == name
    assert task.score == ("exact" if name == "copa" else "first_token")
    for split in ("train", "select", "test"):
        for example in task.examples(split):
            assert example.choices == (None if name == "copa" else LABELS[name])
            assert example.answer == LABELS[name][example.columns["label"]]
    assert {example.answer for example in task.examples("test")} == set(LABELS[name])


@every_task
def test_test_is_the_validation_split_and_the_others_share_out_train(builtin: Callable[[str], Task], name: str) -> None:
    task = builtin(name)
    assert task.counts == {"train": 14, "select": 6, "test": 6}
    premises = {split: [example.columns["premise"] for example in task.examples(split)] for split in task.counts}
    assert premises["train"] + premises["select"] == [f"{name} train {number} got wet." for number in range(20)]
    assert premises["test"] == [f"{name} validation {number} got wet." for number in range(6)]


def test_a_row_that_stands_in_both_is_kept_in_test_alone(super_glue: Path) -> None:
    (super_glue / "rte" / "train-00000-of-00001.parquet").unlink()
    shutil.copy(
        super_glue / "rte" / "validation-00000-of-00001.parquet", super_glue / "rte" / "train-00000-of-00001.parquet"
    )
    assert load_task("rte").counts == {"test": 6}


@every_task
def test_an_unlabelled_row_is_refused_and_never_given_an_answer(super_glue: Path, name: str) -> None:
    folder = super_glue / name
    shutil.copy(folder / "test-00000-of-00001.parquet", folder / "validation-00000-of-00001.parquet")
    with pytest.raises(TaskError, match=rf"^hf://aps/super_glue:{name}#validation, row 1: the answer is empty; fill"):
        load_task(name)


@every_task
def test_a_copy_with_the_hubs_readme_reads_the_same(super_glue: Path, name: str) -> None:
    before = load_task(name).fingerprint
    configs = "".join(
        f"- config_name: {config}\n  data_files:\n"
        + "".join(f"  - split: {split}\n    path: {config}/{split}-*\n" for split in ("train", "validation", "test"))
        for config in LABELS
    )
    (super_glue / "README.md").write_text(f"---\nconfigs:\n{configs}---\n")
    assert load_task(name).fingerprint == before


@every_task
def test_the_labels_are_told_apart_even_where_every_text_begins_with_one_token(
    builtin: Callable[[str], Task], changed: Callable[..., Any], small_tokenizer: Any, name: str
) -> None:
    examples = builtin(name).examples("test")
    for tokenizer, shift in ((small_tokenizer, 0), (changed(template="<|end|> $A"), 1)):
        found = encode(examples, tokenizer, "first_token", longest=512)
        firsts = {examples[entry.owner].answer: entry.ids[entry.first_scored] for entry in found}
        assert len(found) == len(examples)
        assert len(set(firsts.values())) == len(LABELS[name])
        for entry in found:
            assert entry.first_scored == shift + len(small_tokenizer(examples[entry.owner].prompt)["input_ids"])


@every_task
def test_an_evaluation_looks_for_the_arg_max_in_the_whole_vocabulary(
    builtin: Callable[[str], Task],
    tiny: Callable[..., Any],
    small_tokenizer: Any,
    by_hand: Callable[..., Any],
    name: str,
) -> None:
    model, task = tiny("llama", max_position_embeddings=512), builtin(name)
    found = strop.evaluate(model, small_tokenizer, task)
    loss, right, rank = by_hand(model, small_tokenizer, task.examples("test"), first_only=True)
    assert found.count == 6
    assert found.correct is not None
    assert found.correct.tolist() == right
    assert found.loss.tolist() == pytest.approx(loss, abs=1e-5)
    assert max(rank) >= len(LABELS[name])  # so other tokens than the labels were among the rivals


@pytest.mark.parametrize("named", [None, "empty"])
def test_without_hub_or_copy_one_sentence_says_how_to_get_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, named: str | None
) -> None:
    def unreachable(*arguments: object, **rest: object) -> None:
        raise ConnectionError("Couldn't reach 'aps/super_glue' on the Hub\nand a second line")

    monkeypatch.setattr("datasets.load_dataset_builder", unreachable)
    if named is not None:
        monkeypatch.setenv("STROP_DATA", str(tmp_path / named))
    with pytest.raises(TaskError) as raised:
        load_task("copa")
    shown = "not set" if named is None else str(tmp_path / named)
    assert str(raised.value) == (
        f"The data set hf://aps/super_glue:copa#train[:70%] is not under STROP_DATA ({shown}) and cannot be had from the "
        "hub: Couldn't reach 'aps/super_glue' on the Hub; give owner/name as on the hub, or set STROP_DATA to a FOLDER "
        "that holds it, put there by hf download aps/super_glue --repo-type dataset --local-dir FOLDER/aps/super_glue."
    )


def test_the_hub_is_asked_for_the_config_and_the_slice(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, ...]] = []

    def hub(place: str, config: str | None, *, split: str | None, data_dir: None) -> datasets.Dataset:
        asked.append((place, config, split))
        return datasets.Dataset.from_list([{"premise": str(split), "hypothesis": "It is.", "label": 0}])

    monkeypatch.setattr(
        "datasets.load_dataset_builder",
        lambda *_, **__: SimpleNamespace(name="parquet", info=SimpleNamespace(builder_name="parquet")),
    )
    monkeypatch.setattr("datasets.load_dataset", hub)
    load_task("rte")
    assert asked == [("aps/super_glue", "rte", split) for split in ("train[:70%]", "train[70%:]", "validation")]


def test_a_copy_that_lacks_a_task_is_named_by_its_folder(super_glue: Path) -> None:
    shutil.rmtree(super_glue / "cb")
    with pytest.raises(TaskError) as raised:
        load_task("cb")
    message = str(raised.value)
    assert f"cannot be loaded from {super_glue}: " in message
    assert "'cb' not found" in message
    assert "\n" not in message
