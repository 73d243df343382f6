"""Rows that hold images: what an image may be given as, and what is said of one that cannot be used."""

import dataclasses
import importlib.util
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import PIL.Image
import pyarrow
import pyarrow.parquet
import pytest
import yaml
from tests.fixtures.images import image_keys, image_rows

from strop.errors import TaskError, UsageError
from strop.tasks import check_task, load_task
from strop.tasks.pictures import Beside, picture_of

GRAY = np.arange(64, dtype=np.uint8).reshape(8, 8)
COLOUR = np.arange(192, dtype=np.uint8).reshape(8, 8, 3)


def save(folder: Path, name: str, image: Any, **settings: Any) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    (PIL.Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(path, **settings)
    return path


def seen(value: Any, folder: Path | None = None) -> Any:
    return picture_of(value, Beside(folder)).pixels()


def said_of(value: Any, folder: Path | None = None) -> str:
    with pytest.raises(TaskError) as raised:
        seen(value, folder)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_an_image_is_a_path_lists_an_array_an_object_of_pillow_or_what_a_data_set_holds(tmp_path: Path) -> None:
    path = save(tmp_path, "seen/a.png", COLOUR)
    raw = path.read_bytes()
    for value in (
        "seen/a.png",
        COLOUR.tolist(),
        COLOUR,
        PIL.Image.fromarray(COLOUR),
        raw,
        {"bytes": raw, "path": None},
        {"bytes": None, "path": "seen/a.png"},
    ):
        np.testing.assert_array_equal(seen(value, tmp_path), COLOUR)
    assert seen(GRAY.astype(float).tolist()).shape == (8, 8, 1)
    np.testing.assert_array_equal(seen({"bytes": None, "path": str(path)}), COLOUR)  # of a data set without a folder


def test_what_gray_and_rgb_hold_without_loss_is_taken_as_it_is(tmp_path: Path) -> None:
    palette = PIL.Image.fromarray(COLOUR).quantize(64)
    opaque = PIL.Image.fromarray(COLOUR).convert("RGBA")
    save(tmp_path, "gray.png", GRAY)
    save(tmp_path, "palette.png", palette)
    save(tmp_path, "opaque.png", opaque)
    save(tmp_path, "black.png", PIL.Image.fromarray(GRAY > 30))
    np.testing.assert_array_equal(seen("gray.png", tmp_path)[..., 0], GRAY)
    np.testing.assert_array_equal(seen("palette.png", tmp_path), np.asarray(palette.convert("RGB")))
    np.testing.assert_array_equal(seen("opaque.png", tmp_path), COLOUR)
    np.testing.assert_array_equal(seen("black.png", tmp_path)[..., 0], 255 * (GRAY > 30))


def test_a_photograph_is_turned_as_the_camera_noted(tmp_path: Path) -> None:
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # held a quarter turn to the left
    save(tmp_path, "turned.png", COLOUR, exif=exif)
    np.testing.assert_array_equal(seen("turned.png", tmp_path), np.rot90(COLOUR, -1))


def make_strange_files(folder: Path) -> None:
    raw = save(folder, "whole.png", COLOUR).read_bytes()
    (folder / "cut.png").write_bytes(raw[:-30])
    (folder / "words.png").write_text("no image")
    save(folder, "ink.jpg", PIL.Image.new("CMYK", (8, 8)))
    save(folder, "deep.png", PIL.Image.new("I;16", (8, 8)))
    save(folder, "glass.png", PIL.Image.new("RGBA", (8, 8), (1, 2, 3, 9)))
    save(folder, "film.gif", PIL.Image.new("L", (8, 8)), save_all=True, append_images=[PIL.Image.new("L", (8, 8), 9)])


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("none.png", r"there is no file .*none\.png; paths begin at the data file\."),
        ("words.png", r"'words\.png' is no image that Pillow can read; correct the path or drop the row\."),
        ("cut.png", r"'cut\.png' is a damaged image: image file is truncated"),
        ("ink.jpg", r"'ink\.jpg' is of mode CMYK, which 8-bit RGB does not hold; convert it to RGB or gray\."),
        ("deep.png", r"'deep\.png' is of mode I;16, which"),
        ("glass.png", r"'glass\.png' is transparent in places; paste it on the background that is meant\."),
        ("film.gif", r"'film\.gif' has 2 frames, and an image is one; save the one that is meant\."),
        ("../whole.png", r"the path '\.\./whole\.png' leads out of the data file's folder; put the images in it"),
        ("/etc/whole.png", r"the path '/etc/whole\.png' leads out of"),
        (".", r"'\.' cannot be read: Is a directory\."),
        (None, r"it is empty; fill it or drop the row\."),
        ("  ", r"it is empty"),
        (7, r"it holds a number; an image is a path, nested lists of pixels, or the Image value of a data set\."),
        ({"pixels": 1}, r"it holds an object with neither bytes nor path"),
        ([[1, 2], [3]], r"its rows of pixels are of unequal lengths; make them alike\."),
        ([[0.5, 1]], r"pixels are whole numbers from 0 to 255, not 0\.5; scale them\."),
        ([[256]], r"pixels are whole numbers from 0 to 255, not 256"),
        ([1, 2], r"it holds a list of shape \(2,\); pixels are numbers, \(height, width\)"),
        ([["a"]], r"it holds a list with something else than numbers in it"),
        ([[True]], r"it holds a list with something else than numbers in it"),
    ],
    ids=str,
)
def test_what_is_no_image_is_refused_in_one_sentence(tmp_path: Path, value: Any, said: str) -> None:
    make_strange_files(tmp_path)
    assert re.match(said, said_of(value, tmp_path))


def test_an_object_of_pillow_is_held_to_the_same(tmp_path: Path) -> None:
    make_strange_files(tmp_path)
    assert said_of(PIL.Image.new("CMYK", (8, 8))) == (
        "the image is of mode CMYK, which 8-bit RGB does not hold; convert it to RGB or gray."
    )
    with PIL.Image.open(tmp_path / "film.gif") as film:
        assert said_of(film).startswith("the image has 2 frames")


def test_an_image_that_would_fill_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, "large.png", PIL.Image.new("1", (64, 64)))
    for limit in (3000, 1000):  # Pillow warns above it, and refuses above twice of it
        monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", limit)
        assert f"'large.png' has more pixels than Pillow's limit, {limit:,}; shrink it" in said_of(
            "large.png", tmp_path
        )


def test_rows_of_the_hub_have_no_folder_and_rows_of_python_have_no_bounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(tmp_path, "a.png", GRAY)
    assert "the path 'a.png' begins nowhere" in said_of("a.png")
    monkeypatch.chdir(tmp_path)
    rows = [{**row, "image": str(path) if index else "a.png"} for index, row in enumerate(image_rows(2))]
    task = load_task(image_keys(data=rows, splits={"select": 0.5, "test": 0.5}))
    assert sum(task.counts.values()) == 2


def write_task(folder: Path, rows: list[dict[str, Any]], **keys: Any) -> Path:
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    path = folder / "animals.yaml"
    path.write_text(yaml.safe_dump(image_keys(data="rows.jsonl", **keys)))
    return path


def test_a_task_says_which_row_and_column_hold_what_cannot_be_used(tmp_path: Path) -> None:
    make_strange_files(tmp_path)
    rows = image_rows(8)
    rows[1]["image"], rows[4]["image"], rows[6]["image"] = "words.png", "whole.png", "cut.png"
    path = write_task(tmp_path, rows)
    with pytest.raises(TaskError, match=r"rows\.jsonl, row 2: column 'image': 'words\.png' is no image that Pillow"):
        load_task(path)
    found = check_task(path)  # which decodes what loading looks at the heads of
    assert [(row.row, row.problem.split(":")[0]) for row in found.bad] == [(2, "column 'image'"), (7, "its image")]
    assert (found.distinct, found.prompt_characters) == (6, None)
    missing = write_task(tmp_path, [{"picture": 1, "kind": "cat"}])
    with pytest.raises(TaskError, match="row 1: image: names the column 'image', which is not there"):
        load_task(missing)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"prompt": "{{ kind }}"}, "prompt is text, and what a classifier of images looks at is image alone"),
        ({"pair": "{{ kind }}"}, "pair is text"),
        ({"chat": True}, "chat is text"),
        ({"max_tokens": 9}, "max_tokens is text"),
        ({"paraphrases": "other"}, "paraphrases is text"),
        ({"counterfactual": "{{ kind }}"}, "counterfactual is text"),
        ({"score": "exact", "labels": None}, "image goes with score: label, not with score: exact"),
        ({"shots": {"count": 2}}, "shots go with answers that are written, not with score: label"),
        ({"picture": "image", "image": None}, "write image"),
    ],
    ids=str,
)
def test_what_goes_with_text_does_not_go_with_images(tmp_path: Path, keys: dict[str, Any], said: str) -> None:
    content = {key: value for key, value in image_keys(data=image_rows(3), **keys).items() if value is not None}
    with pytest.raises(TaskError) as raised:
        load_task(content)
    assert said in str(raised.value)


def test_an_image_is_the_same_by_what_it_holds_and_not_by_its_name(tmp_path: Path) -> None:
    save(tmp_path, "a.png", GRAY)
    save(tmp_path, "copy.png", GRAY)
    save(tmp_path, "b.png", GRAY[::-1].copy())
    named = [("a.png", "cat"), ("copy.png", "cat"), ("b.png", "owl"), ("copy.png", "dog")]
    found = check_task(write_task(tmp_path, [{"image": image, "kind": kind} for image, kind in named]))
    assert (found.distinct, found.repeated) == (3, 1)
    assert [(own.prompt, own.answers, own.rows) for own in found.contradictions] == [("a.png", ("cat", "dog"), (1, 4))]
    one, other = ([{"image": image, "kind": "cat"} for image in pair] for pair in (["a.png"], ["copy.png"]))
    (tmp_path / "one.jsonl").write_text(json.dumps(one[0]))
    (tmp_path / "other.jsonl").write_text(json.dumps(other[0]))
    path = write_task(tmp_path, image_rows(1), splits={"files": {"select": "one.jsonl", "test": "other.jsonl"}})
    path.write_text(path.read_text().replace("data: rows.jsonl\n", ""))
    with pytest.raises(TaskError, match="splits overlap: row 1 of test and row 1 of select have the same"):
        load_task(path)


def test_the_fingerprint_is_over_what_images_hold() -> None:
    tasks = [load_task(image_keys(data=image_rows(6, seed=seed))) for seed in (0, 0, 1)]
    assert tasks[0].fingerprint == tasks[1].fingerprint != tasks[2].fingerprint
    renamed = {
        name: tuple(dataclasses.replace(one, image=dataclasses.replace(one.image, name="x")) for one in members)
        for name, members in tasks[0].splits.items()
    }
    assert dataclasses.replace(tasks[0], splits=renamed).fingerprint == tasks[0].fingerprint


def test_images_of_a_data_set_and_of_a_parquet_file_are_read(tmp_path: Path) -> None:
    paths = [str(save(tmp_path, f"{index}.png", GRAY + index)) for index in range(3)]
    kinds = ["cat", "dog", "owl"]
    dataset = datasets.Dataset.from_dict({"image": paths, "kind": kinds}).cast_column("image", datasets.Image())
    raw = [{"bytes": Path(path).read_bytes(), "path": None} for path in paths]
    pyarrow.parquet.write_table(pyarrow.table({"image": raw, "kind": kinds}), tmp_path / "rows.parquet")
    path = write_task(tmp_path, [])
    path.write_text(path.read_text().replace("rows.jsonl", "rows.parquet"))
    for task in (load_task(image_keys(data=dataset)), load_task(path)):
        shown = {one.answer: one.image.pixels() for members in task.splits.values() for one in members if one.image}
        for index, kind in enumerate(kinds):
            np.testing.assert_array_equal(shown[kind][..., 0], GRAY + index)


def test_without_pillow_one_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    own: Callable[..., Any] = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == "PIL" else own(name, *more))
    with pytest.raises(
        UsageError, match=r"^Images are read by Pillow, which is not here; pip install 'strop\[images\]'\.$"
    ):
        load_task(image_keys(data=image_rows(3)))
