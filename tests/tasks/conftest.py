"""A writer of task files with their data, and the plain sums every measured figure is held against."""

import copy
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tokenizers import processors

from strop.tasks import Example

WriteTask = Callable[..., Path]


@pytest.fixture(autouse=True)
def own_cache_of_data_sets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keep what `datasets` caches out of the user's home, and the network out of the tests."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets-cache")
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.delenv("STROP_DATA", raising=False)


def rows_of(count: int) -> list[dict[str, Any]]:
    return [{"prompt": f"{number} + 1 =", "answer": f" {number + 1}", "key": number // 2} for number in range(count)]


@pytest.fixture
def write_task(tmp_path: Path) -> WriteTask:
    """Write a task file, and its data where `rows` or `text` is given; a key of None is left out."""

    def write(
        rows: Sequence[object] | None = None, *, text: str | bytes | None = None, file: str = "data.jsonl", **keys: Any
    ) -> Path:
        if text is None:
            rows = rows_of(20) if rows is None else rows
            text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (tmp_path / file).write_bytes(text if isinstance(text, bytes) else text.encode())
        content = {"name": "made", "data": file, "splits": {"select": 0.4, "test": 0.6}, **keys}
        path = tmp_path / "made.yaml"
        path.write_text(
            yaml.safe_dump({key: value for key, value in content.items() if value is not None}, allow_unicode=True)
        )
        return path

    return write


@pytest.fixture(scope="session")
def changed(small_tokenizer: Any) -> Callable[..., Any]:
    """The small tokenizer with another template, normaliser or post-processor."""

    def change(*, template: str | None = None, **parts: Any) -> Any:
        tokenizer = copy.deepcopy(small_tokenizer)
        if template is not None:
            tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
                single=template, special_tokens=[("<|end|>", 0)]
            )
        for name, part in parts.items():
            setattr(tokenizer.backend_tokenizer, name, part)
        return tokenizer

    return change


def super_glue_rows(config: str, split: str, count: int) -> list[dict[str, Any]]:
    """Made-up rows with the columns of a SuperGLUE task, the test split's unlabelled as the hub's are."""
    label_count = 3 if config == "cb" else 2
    rows = []
    for number in range(count):
        said = {"premise": f"{config} {split} {number} got wet.", "idx": number}
        asked = (
            {"choice1": "It rained.", "choice2": "It dried.", "question": ("cause", "effect")[number % 2]}
            if config == "copa"
            else {"hypothesis": f"Number {number} was dry."}
        )
        rows.append({**said, **asked, "label": -1 if split == "test" else number % label_count})
    return rows


@pytest.fixture
def super_glue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A local copy with the hub's layout, of twenty train and six validation rows a task, found by STROP_DATA."""
    import pyarrow
    import pyarrow.parquet

    folder = tmp_path / "shelf" / "aps" / "super_glue"
    for config in ("copa", "cb", "rte"):
        (folder / config).mkdir(parents=True)
        for split, count in (("train", 20), ("validation", 6), ("test", 6)):
            table = pyarrow.Table.from_pylist(super_glue_rows(config, split, count))
            pyarrow.parquet.write_table(table, folder / config / f"{split}-00000-of-00001.parquet")
    monkeypatch.setenv("STROP_DATA", str(tmp_path / "shelf"))
    return folder


GLUE = {
    "mnli": (("premise", "hypothesis"), 3), "sst2": (("sentence",), 2), "mrpc": (("sentence1", "sentence2"), 2),
    "cola": (("sentence",), 2), "qnli": (("question", "sentence"), 2), "qqp": (("question1", "question2"), 2),
    "rte": (("sentence1", "sentence2"), 2), "stsb": (("sentence1", "sentence2"), 0),
}  # fmt: skip


def glue_rows(config: str, split: str, count: int) -> list[dict[str, Any]]:
    """Made-up rows with the columns of a GLUE task."""
    columns, labels = GLUE[config]
    return [
        {
            **{column: f"{column} {split} {number}" for column in columns},
            "label": number % labels if labels else number % 26 / 5,
            "idx": number,
        }
        for number in range(count)
    ]


def write_glue(shelf: Path, config: str, *, train: int = 20, held: int = 9) -> None:
    """Write one GLUE task in the hub's layout."""
    import pyarrow
    import pyarrow.parquet

    folder = shelf / "nyu-mll" / "glue" / config
    folder.mkdir(parents=True, exist_ok=True)
    for split, count in (("train", train), ("validation_matched" if config == "mnli" else "validation", held)):
        table = pyarrow.Table.from_pylist(glue_rows(config, split, count))
        pyarrow.parquet.write_table(table, folder / f"{split}-00000-of-00001.parquet")


@pytest.fixture
def glue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A local copy with the hub's layout, of twenty train and nine validation rows a task, found by STROP_DATA."""
    shelf = tmp_path / "shelf"
    for config in GLUE:
        write_glue(shelf, config)
    monkeypatch.setenv("STROP_DATA", str(shelf))
    return shelf


@pytest.fixture
def glue_writer() -> Callable[..., None]:
    """Write one GLUE task of other sizes: `glue_writer(shelf, "cola", held=6000)`."""
    return write_glue


def llm_adapters_rows(name: str, split: str, count: int) -> list[dict[str, Any]]:
    """Made-up rows in LLM-Adapters' layout; of `math`, every fifth has the options and the letter of AQuA."""
    rows = []
    for number in range(count):
        said = {"instruction": f"{name} {split} {number}?", "input": ""}
        if name in ("math", "gsm8k", "AQuA"):
            letters = name == "AQuA" or (name == "math" and split == "train" and number % 5 == 0)
            answer = "ABCDE"[number % 5] if letters else f"{number}.0"
            rows.append({**said, "output": f"A: It is {number}. The answer is {answer}.", "answer": answer})
        else:
            answer = ("true", "false")[number % 2] if name == "boolq" else f"answer{number % 4 + 1}"
            rows.append({**said, "output": f"the correct answer is {answer}", "answer": answer})
    return rows


@pytest.fixture
def llm_adapters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A local copy with LLM-Adapters' layout, of 310 train and six test rows a set, found by STROP_DATA.

    Its folders and files are named in the several ways that are understood.
    """
    shelf = tmp_path / "shelf"
    named = "boolq piqa social_i_qa hellaswag winogrande arc_easy ARC-Challenge openbookqa AQuA gsm8k math".split()
    for name in named:
        (shelf / name).mkdir(parents=True)
        train = llm_adapters_rows(name, "train", 310)
        tests = ("test_mawps", "test_svamp", "test_addsub") if name == "math" else ("test",)
        for split, rows in (("train", train), *((test, llm_adapters_rows(name, test, 6)) for test in tests)):
            if name == "arc_easy":
                text = "".join(json.dumps(row) + "\n" for row in rows)
                (shelf / name / f"{split}.jsonl").write_text(text, encoding="utf-8")
            else:
                (shelf / name / f"{split}.json").write_text(json.dumps(rows), encoding="utf-8")
    monkeypatch.setenv("STROP_DATA", str(shelf))
    return shelf


@pytest.fixture
def by_hand() -> Callable[..., tuple[list[float], list[bool], list[int]]]:
    """Loss, rightness and rank of each example: one text at a time, all logits, a loop over tokens.

    Only for texts whose prompt and answer the tokenizer leaves apart.
    """

    def measure(
        model: torch.nn.Module, tokenizer: Any, examples: Sequence[Example], *, first_only: bool = False
    ) -> tuple[list[float], list[bool], list[int]]:
        losses, rights, ranks = [], [], []
        for example in examples:
            prompt_ids = tokenizer(example.prompt)["input_ids"]
            answer_ids = tokenizer(example.answer)["input_ids"]
            ids = prompt_ids + answer_ids
            assert tokenizer(example.prompt + example.answer)["input_ids"] == ids
            with torch.no_grad():
                logits = model(torch.tensor([ids])).logits[0].double()
            log_p = logits - torch.logsumexp(logits, -1, keepdim=True)
            scored = range(len(prompt_ids), len(prompt_ids) + 1 if first_only else len(ids))
            start = max(scored[0], 1)
            scored = range(start, scored[-1] + 1)
            losses.append(-sum(float(log_p[position - 1, ids[position]]) for position in scored) / len(scored))
            rights.append(all(int(logits[position - 1].argmax()) == ids[position] for position in scored))
            own = logits[start - 1, ids[start]]
            ranks.append(sum(1 for other in logits[start - 1] if other > own))
        return losses, rights, ranks

    return measure
