"""A task file anew, with solved rows before each prompt."""

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from strop.tasks.hub import HUB
from strop.tasks.loading import builtin_tasks, path_of_task
from strop.tasks.task_file import FORM
from strop.yaml_document import read_mapping


def content_with_shots(source: str | Path, *, count: int, seed: int = 0) -> dict[str, Any]:
    """Return what a task file says, for a file anywhere else, with solved train rows before each prompt.

    Args:
        source: the name of a built-in task, or the path of a task file.
        count: of the rows.
        seed: of their draw.

    Raises:
        TaskError: there is no such file.

    >>> content_with_shots("int-sum", count=2)["shots"]
    {'count': 2, 'seed': 0}
    """
    if str(source) in builtin_tasks():
        with resources.as_file(resources.files("strop.tasks") / "builtin" / f"{source}.yaml") as path:
            return _moved(path, count, seed)
    return _moved(path_of_task(str(source)), count, seed)


def _moved(path: Path, count: int, seed: int) -> dict[str, Any]:
    content = {str(key): value for key, value in read_mapping(path, FORM).items()}
    if isinstance(content.get("data"), str):
        content["data"] = _absolute(content["data"], path.parent)
    splits = content.get("splits")
    if isinstance(splits, Mapping) and isinstance(splits.get("files"), Mapping):
        files = {name: _absolute(data, path.parent) for name, data in splits["files"].items()}
        content["splits"] = {**splits, "files": files}
    return {**content, "shots": {"count": count, "seed": seed}}


def _absolute(data: str, folder: Path) -> str:
    return data if data.startswith(HUB) else str((folder / Path(data).expanduser()).resolve())
