"""Data: files, rows, prompts, splits, groups, categories; it knows no model."""

from strop.tasks.check import TaskCheck, check_task
from strop.tasks.document import task_from_json, task_to_json
from strop.tasks.examples import Example, Shot
from strop.tasks.labels import Labels
from strop.tasks.loading import TaskSource, builtin_tasks, load_task
from strop.tasks.passages import text_task
from strop.tasks.rendering import BadRow
from strop.tasks.task import Task, refuse_objective
from strop.tasks.task_file import GenerateSettings, Score, ShotSettings, SplitSettings, TaskFile, read_task_file
from strop.tasks.with_shots import content_with_shots

__all__ = [
    "BadRow",
    "Example",
    "GenerateSettings",
    "Labels",
    "Score",
    "Shot",
    "ShotSettings",
    "SplitSettings",
    "Task",
    "TaskCheck",
    "TaskFile",
    "TaskSource",
    "builtin_tasks",
    "check_task",
    "content_with_shots",
    "load_task",
    "read_task_file",
    "refuse_objective",
    "task_from_json",
    "task_to_json",
    "text_task",
]
