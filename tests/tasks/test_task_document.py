"""A task that went through JSON is the same task."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from strop.tasks import Example, Task, load_task, task_from_json, task_to_json
from strop.tasks.pictures import Picture


@pytest.mark.parametrize("name", ["int-sum", "world-facts"])
def test_a_built_in_task_is_what_it_was(name: str) -> None:
    task = load_task(name)
    again = task_from_json(json.loads(json.dumps(task_to_json(task))))
    assert again.fingerprint == task.fingerprint
    assert (again.name, again.score, again.counts) == (task.name, task.score, task.counts)
    for one, other in zip(again.examples("test"), task.examples("test"), strict=True):
        assert (one.group, one.category, one.row) == (other.group, other.category, other.row)


def test_shots_labels_chats_pairs_choices_and_generation_are_kept(cities: Callable[..., Path], facts: Path) -> None:
    labelled = load_task(cities(category="{{ where }}"))
    shown = load_task(facts).with_shots(2, seed=3)
    facts.write_text(
        facts.read_text()
        + 'score: choice\nchoices: [" France", " Brazil"]\nchat: {system: "Be brief."}\ngroup: subject\n'
    )
    chosen = load_task(facts)
    for task in (labelled, shown, chosen):
        again = task_from_json(json.loads(json.dumps(task_to_json(task))))
        assert (again, again.fingerprint) == (task, task.fingerprint)
        assert again.examples("select")[0].category == task.examples("select")[0].category


def test_images_are_kept_by_their_pixels() -> None:
    pixels = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    example = Example("2 x 2", "a", image=Picture("2 x 2", "0" * 32, pixels))
    task = Task("seen", "label", {"select": (example,)})
    (again,) = task_from_json(json.loads(json.dumps(task_to_json(task)))).examples("select")
    assert again.image is not None
    assert again.image.pixels().tolist() == pixels.tolist()
