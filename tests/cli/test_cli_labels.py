"""Classifiers at the command line: the task says which kind of model is loaded, and every figure has its metric's name."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Cities = Callable[..., Path]
QUICK = [
    "--rank", "1", "--positions", "f3+l3", "--epochs", "4", "--batch-size", "8", "--accumulate", "1", "--lr", "0.01",
]  # fmt: skip


@pytest.fixture
def run(strop_command: Any, tiny_folder: Path, cities: Cities, tmp_path: Path) -> Path:
    """A finished training of a classifier."""
    out = tmp_path / "run"
    done = strop_command("train", tiny_folder, "--task", cities(), "--out", out, "--quiet", "--untied", *QUICK)
    assert done.code == 0, done.err
    return out


def test_a_classifier_is_trained_and_its_recipe_scores_the_same_again(
    strop_command: Any, tiny_folder: Path, cities: Cities, run: Path
) -> None:
    result = json.loads((run / "result.json").read_text())
    assert result["metric"] == "accuracy"
    assert result["head"] == {"labels": ["france", "brazil"], "parameters": 64}
    assert result["edited"]["test"]["accuracy"] > 0.9
    again = strop_command("eval", tiny_folder, "--task", cities(), "--recipe", run / "recipe", "--json").json
    assert again["base"] == result["base"]["test"]
    assert again["edited"]["accuracy"] == result["edited"]["test"]["accuracy"]
    assert again["comparison"] == result["comparison"]["test"]


def test_a_person_reads_the_head_and_the_metric(
    strop_command: Any, tiny_folder: Path, cities: Cities, run: Path, tmp_path: Path
) -> None:
    pytest.importorskip("sklearn")
    task = cities(metric="matthews")
    trained = strop_command("train", tiny_folder, "--task", task, "--out", tmp_path / "other", *QUICK)
    assert "matthews" in trained.out
    assert "a classification head of 2 labels (france, brazil), with 64 parameters of its own" in trained.out
    assert " of matthews (95 % interval " in trained.out
    shown = strop_command(
        "eval", tiny_folder, "--task", task, "--recipe", run / "recipe", "--out", tmp_path / "each.json"
    )
    assert "matthews" in shown.out
    assert " of matthews (95 % interval " in shown.out
    (first, *_) = json.loads((tmp_path / "each.json").read_text())["examples"]
    assert first["edited"]["predicted"] in ("france", "brazil")
    alone = strop_command("eval", tiny_folder, "--task", task)
    assert "Next: strop train " in alone.out


@pytest.mark.parametrize("command", ["search", "prune"])
def test_what_edits_a_classifier_as_it_decides_refuses_a_head_that_would_be_drawn(
    strop_command: Any, tiny_folder: Path, cities: Cities, tmp_path: Path, command: str
) -> None:
    done = strop_command(command, tiny_folder, "--task", cities(), "--out", tmp_path / "run", "--quiet")
    assert (done.code, done.out) == (1, "")
    assert done.err.strip().endswith(
        "has no head for 2 labels, and edits are found for one that decides already; give a classifier, or let strop train "
        "learn a head."
    )
    assert not (tmp_path / "run").exists()


def test_a_head_that_was_trained_is_begun_with(
    strop_command: Any, tiny_folder: Path, cities: Cities, run: Path, tmp_path: Path
) -> None:
    call = ["search", tiny_folder, "--task", cities(), "--out", tmp_path / "other", "--after", run / "recipe", "--json"]
    limits = ["--select-limit", "16", "--test-limit", "16", "--gradient-examples", "8", "--top-matrices", "1"]
    found = strop_command(*call, *limits).json
    assert found["head"]["labels"] == ["france", "brazil"]
    assert found["start"]["test"]["accuracy"] >= found["base"]["test"]["accuracy"]


def test_a_classifier_is_sharpened_without_a_bound_on_drift(
    strop_command: Any, tiny_folder: Path, cities: Cities, tmp_path: Path
) -> None:
    call = ["sharpen", tiny_folder, "--task", cities(), "--out", tmp_path / "run", "--quiet"]
    done = strop_command(*call, "--steps", "1", "--examples", "8", "--select-limit", "8", "--test-limit", "8")
    assert done.code == 0, done.err
    assert "singular values of " in done.out
    assert "guards" not in json.loads((tmp_path / "run" / "result.json").read_text())
    refused = strop_command(*call[:-2], tmp_path / "other", "--drift", "0.5", "--quiet")
    assert refused.code == 2
    assert "a classifier writes no text that drift (--drift)" in refused.err
    assert not (tmp_path / "other").exists()


def test_a_classifiers_spectrum_is_baked_with_its_head(
    strop_command: Any, tiny_folder: Path, cities: Cities, tmp_path: Path
) -> None:
    quick = ["--epochs", "4", "--batch-size", "8", "--accumulate", "1", "--lr", "0.01"]
    trained = strop_command(
        "train", tiny_folder, "--task", cities(), "--out", tmp_path / "run", "--method", "spectrum", *quick
    )
    assert trained.code == 0, trained.err
    baked = strop_command("bake", tiny_folder, "--recipe", tmp_path / "run" / "recipe", "--out", tmp_path / "baked")
    assert baked.code == 0, baked.err + trained.out
    assert 'LlamaForSequenceClassification.from_pretrained("' in baked.out
    once = strop_command(
        "eval", tiny_folder, "--task", cities(), "--recipe", tmp_path / "run" / "recipe", "--json"
    ).json
    again = strop_command("eval", tmp_path / "baked", "--task", cities(), "--json").json
    assert again["base"]["accuracy"] == once["edited"]["accuracy"]
    assert again["base"]["loss"] == pytest.approx(once["edited"]["loss"], abs=1e-6)
