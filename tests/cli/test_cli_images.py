"""Tasks of images at the command line, from a folder's rows to a baked checkpoint."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import yaml
from tests.fixtures.images import image_keys, image_rows, save_vit

import strop


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_vit(tmp_path / "vit")


@pytest.fixture
def task(tmp_path: Path) -> Path:
    """A task file with its images as PNG files beside it."""
    rows = image_rows(30)
    (tmp_path / "seen").mkdir()
    for index, row in enumerate(rows):
        PIL.Image.fromarray(np.array(row["image"], dtype=np.uint8)).save(tmp_path / "seen" / f"{index}.png")
        row["image"] = f"seen/{index}.png"
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    path = tmp_path / "animals.yaml"
    path.write_text(yaml.safe_dump(image_keys(data="rows.jsonl")))
    return path


def test_a_folder_is_scored_searched_baked_and_scored_again(
    strop_command: Any, folder: Path, task: Path, tmp_path: Path
) -> None:
    shown = strop_command("eval", folder, "--task", task, "--json", "--out", tmp_path / "each.json")
    assert shown.json["base"]["accuracy"] == strop.evaluate(folder, task).accuracy
    first = json.loads((tmp_path / "each.json").read_text())["examples"][0]
    assert first["prompt"].startswith("seen/")
    assert first["base"]["predicted"] in ("cat", "dog", "owl")
    run = tmp_path / "run"
    call = ["--task", task, "--out", run, "--strategy", "exhaustive", "--layers", "1", "--rank-fractions", "0.1,0.5"]
    found = strop_command("search", folder, *call, "--json").json
    assert found["interventions"]
    baked = strop_command("bake", folder, "--recipe", run / "recipe", "--out", tmp_path / "baked", "--quiet")
    assert "ViTForImageClassification.from_pretrained(" in baked.out
    again = strop_command("eval", tmp_path / "baked", "--task", task, "--json").json
    assert again["base"]["accuracy"] == found["edited"]["test"]["accuracy"]
    resumed = strop_command("search", folder, *call, "--json", "--resume").json
    assert resumed["edited"] == found["edited"]


def test_edits_of_patches_are_trained_with_the_head(
    strop_command: Any, folder: Path, task: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    call = ["train", folder, "--task", task, "--out", run, "--rank", "2", "--positions", "all", "--lr", "0.02"]
    done = strop_command(*call, "--epochs", "3", "--batch-size", "4", "--accumulate", "1", "--json")
    assert done.json["head"] == {"labels": ["cat", "dog", "owl"], "parameters": 51}
    assert done.json["edited"]["select"]["loss"] < done.json["base"]["select"]["loss"]
    again = strop_command("eval", folder, "--task", task, "--recipe", run / "recipe", "--json").json
    assert again["edited"]["accuracy"] == done.json["edited"]["test"]["accuracy"]


def test_a_model_and_a_task_of_images_are_looked_at(strop_command: Any, folder: Path, task: Path) -> None:
    shown = strop_command("inspect", folder, "--no-spectra").out
    assert "vit.layers" in shown or "mlp.fc1" in shown
    checked = strop_command("task", "check", task).out
    assert "image and answer: seen/" in checked
    assert "prompts:" not in checked


def test_what_does_not_go_together_is_said_in_one_sentence(
    refused: Callable[..., str],
    folder: Path,
    tiny_folder: Path,
    task: Path,
    cities: Callable[..., Path],
    tmp_path: Path,
) -> None:
    assert "(LlamaForCausalLM) classifies no images" in refused("eval", tiny_folder, "--task", task)
    assert "looks at images and reads no text" in refused("eval", folder, "--task", cities())
    out = ["--task", task, "--out", tmp_path / "run"]
    assert "has no head for 2 labels" in refused("prune", folder, "--task", two_labels(task), "--out", tmp_path / "run")
    assert "writes no text that drift (--drift)" in refused("sharpen", folder, *out, "--drift", "0.5", code=2)
    assert "shots go with answers that are written" in refused("eval", folder, "--task", task, "--shots", "2", code=2)


def two_labels(task: Path) -> Path:
    """Return a task of the same rows, but for those of one label."""
    content = yaml.safe_load(task.read_text())
    content |= {"labels": ["cat", "dog"], "where": "kind != 'owl'"}
    other = task.with_name("two.yaml")
    other.write_text(yaml.safe_dump(content))
    return other
