"""A task that is given as Python objects: a task file's keys in a mapping, with rows in the place of a data file's name."""

from collections.abc import Mapping
from typing import Any

from strop.errors import TaskError
from strop.tasks.rows import Row, given_rows, is_dataset
from strop.tasks.task_file import TaskFile, checked_task_file

SHOWN = "The task"
ROWS_ALONE = "rows"
"""What results call a task that is given as rows and nothing else."""


def given_task(source: Any) -> tuple[TaskFile, dict[str, list[Row]]]:
    """Return what a task file would say, and the rows it was given, each set by the name that stands for it there.

    Args:
        source: a mapping of a task file's keys, or rows alone.

    Raises:
        TaskError: it is neither, a key does not fit, or the rows do not.
    """
    if not isinstance(source, Mapping):
        return checked_task_file({"name": ROWS_ALONE, "data": "data"}, shown=SHOWN), {
            "data": given_rows(source, shown="data")
        }
    if any(map(is_dataset, source.values())) and "data" not in source:
        raise TaskError(
            f"{SHOWN} is a mapping of data sets ({', '.join(map(str, source))}); name each by what it is for: "
            "{'name': …, 'splits': {'files': {'select': …, 'test': …}}}."
        )
    content = dict(source)
    given: dict[str, list[Row]] = {}
    if "data" in content:
        content["data"] = _named(content["data"], "data", given)
    splits = content.get("splits")
    if isinstance(splits, Mapping) and isinstance(splits.get("files"), Mapping):
        files = {name: _named(data, f"splits.files.{name}", given) for name, data in splits["files"].items()}
        content["splits"] = {**splits, "files": files}
    return checked_task_file(content, shown=SHOWN), given


def _named(data: Any, name: str, given: dict[str, list[Row]]) -> Any:
    """Return a source's address, or the name under which its rows are kept in `given`."""
    if data is None or isinstance(data, str):
        return data
    if hasattr(data, "__fspath__"):
        return str(data)
    given[name] = given_rows(data, shown=name)
    return name
