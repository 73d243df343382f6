"""A Vision Transformer on digits: how they are dealt, the task they make, and a small run through the task interface."""

import json
from pathlib import Path

import numpy as np
import pytest
from examples.digits.__main__ import SMALL, main, methods_of
from examples.digits.images import DIGITS, deal_images, write_task
from sklearn.datasets import load_digits

import strop


def test_every_image_is_dealt_once_and_keeps_its_shades() -> None:
    read, others = deal_images(read=100, seed=0)
    assert (len(read.digits), len(others.digits)) == (100, 1697)
    rows = np.concatenate([images.pixels.reshape(-1, 64) for images in (read, others)])
    assert len(np.unique(rows, axis=0)) == len(rows) == 1797  # the data set has no image twice
    assert len(np.unique(rows)) == len(np.unique(load_digits().images)) == 17


def test_the_task_holds_the_images_that_the_reader_has_not_read(tmp_path: Path) -> None:
    _, others = deal_images(read=1500, seed=0)
    task = strop.load_task(write_task(tmp_path, others, seed=0))
    assert task.labels is not None
    assert task.labels.names == DIGITS
    dealt = [example for split in ("train", "select", "test") for example in task.examples(split)]
    assert len(dealt) == 297
    by_row = sorted(dealt, key=lambda example: example.row)
    assert [int(example.answer) for example in by_row] == others.digits.tolist()
    np.testing.assert_array_equal([one.image.pixels()[..., 0] for one in by_row if one.image], others.pixels)


def test_a_small_run_gives_figures_that_can_be_had_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert list(methods_of(SMALL)) == ["LASER", "eigenpruning", "sharpening", "learned spectrum", "LoReFT"]
    main(["--small", "--methods", "LASER", "LoReFT", "--out", str(tmp_path)])
    found = json.loads((tmp_path / "figures.json").read_text(encoding="utf-8"))["results"]
    assert list(found) == ["LASER", "LoReFT"]
    shown = capsys.readouterr().out
    for name, result in found.items():
        before, after = (100 * result[side]["test"]["accuracy"] for side in ("base", "edited"))
        assert f"| {name} | {before:.1f} | {after:.1f} |" in shown
    model, processor = strop.load_image_classifier(tmp_path / "model")
    task = strop.load_task(tmp_path / "digits.yaml")
    for name, result in found.items():
        with strop.applied(model, strop.Recipe.load(tmp_path / name / "recipe")):
            again = strop.evaluate(model, processor, task, limit=SMALL.limit)
        assert result["edited"]["test"]["accuracy"] == again.accuracy
