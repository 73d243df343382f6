"""A task as plain JSON, examples and all: what another machine needs to read the same, whatever the task was loaded from."""

import base64
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from strop.tasks.chat import Chat
from strop.tasks.examples import Example, Shot
from strop.tasks.labels import Labels
from strop.tasks.pictures import Picture
from strop.tasks.task import Task
from strop.tasks.task_file import GenerateSettings, ShotSettings

LEFT_OUT = ("columns", "paraphrases", "frequency")
"""What an example has that is neither read nor scored."""


def task_to_json(task: Task) -> dict[str, Any]:
    """Return a task as JSON can hold it.

    Args:
        task: to be written.

    >>> from strop.tasks import load_task
    >>> task = load_task("int-sum")
    >>> again = task_from_json(task_to_json(task))
    >>> again.fingerprint == task.fingerprint
    True
    """
    return {
        "name": task.name,
        "score": task.score,
        "generate": task.generate.model_dump() if task.generate is not None else None,
        "labels": dataclasses.asdict(task.labels) if task.labels is not None else None,
        "shots": task.shots.model_dump() if task.shots is not None else None,
        "splits": {name: [_example_to_json(example) for example in task.splits[name]] for name in task.splits},
    }


def task_from_json(content: Mapping[str, Any]) -> Task:
    """Return the task that `task_to_json` wrote.

    Args:
        content: as it was written.
    """
    generate, labels, shots = (content[name] for name in ("generate", "labels", "shots"))
    return Task(
        content["name"],
        content["score"],
        {name: tuple(map(_example_from_json, rows)) for name, rows in content["splits"].items()},
        None if generate is None else GenerateSettings.model_validate(generate),
        None if labels is None else Labels(tuple(labels["names"]), labels["metric"], labels["max_tokens"]),
        None if shots is None else ShotSettings.model_validate(shots),
    )


def _example_to_json(example: Example) -> dict[str, Any]:
    """Return what an example holds that is not as it is by default."""
    own: dict[str, Any] = {"prompt": example.prompt, "answer": example.answer}
    for field in dataclasses.fields(example):
        value = getattr(example, field.name)
        if field.name not in (*own, *LEFT_OUT, "chat", "shots", "image") and value != field.default:
            own[field.name] = value
    if example.chat is not None:
        own["chat"] = {"system": example.chat.system, "arguments": dict(example.chat.arguments)}
    if example.shots:
        own["shots"] = [dataclasses.astuple(shot) for shot in example.shots]
    if example.image is not None:
        own["image"] = _picture_to_json(example.image)
    return own


def _example_from_json(own: Mapping[str, Any]) -> Example:
    read = dict(own)
    if "choices" in own:
        read["choices"] = tuple(own["choices"])
    if "chat" in own:
        read["chat"] = Chat(own["chat"]["system"], tuple(sorted(own["chat"]["arguments"].items())))
    if "shots" in own:
        read["shots"] = tuple(Shot(*shot) for shot in own["shots"])
    if "image" in own:
        read["image"] = _picture_from_json(own["image"])
    return Example(**read)


def _picture_to_json(picture: Picture) -> dict[str, Any]:
    content = picture.content
    shape = list(content.shape) if isinstance(content, np.ndarray) else None
    raw = content.read_bytes() if isinstance(content, Path) else bytes(content)
    return {
        "name": picture.name,
        "digest": picture.digest,
        "shape": shape,
        "bytes": base64.b64encode(raw).decode("ascii"),
    }


def _picture_from_json(own: Mapping[str, Any]) -> Picture:
    raw = base64.b64decode(own["bytes"])
    if own["shape"] is None:
        return Picture(own["name"], own["digest"], raw)
    return Picture(own["name"], own["digest"], np.frombuffer(raw, dtype=np.uint8).reshape(own["shape"]))
