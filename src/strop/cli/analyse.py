"""What `strop report --analyse` asks of a model, once, for each run it reports."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from strop.cli.console import anatomy_for_command, load_for_command, task_for_command
from strop.cli.progress import showing_progress

if TYPE_CHECKING:
    from strop.analysis import RunAnalyses
    from strop.progress import Progress
    from strop.recipe import Recipe
    from strop.tasks import Task


def analyse_runs(
    runs: list[Path], *, task_name: str | None, model_name: str | None, family_file: Path | None, quiet: bool
) -> list[str]:
    """Ask the models of finished runs what a report shows beyond their files, and return what was left out and why.

    Args:
        runs: their folders.
        task_name: the task of all of them; what each run names, by default.
        model_name: the base of all of them; what each recipe names, by default.
        family_file: describes an architecture Strop does not know.
        quiet: show no progress.
    """
    from strop.analysis import RunAnalyses
    from strop.recipe import Recipe
    from strop.runs import finished_run

    asked, lines = [], []
    for run in runs:  # what does not fit is told before a model is loaded
        result, recipe = finished_run(run), Recipe.load(run / "recipe")
        task = _task_of(run, task_name or result.task.name, named=task_name is not None, shots=result.task.shots)
        analyses = RunAnalyses.fitting(task, recipe, limit=result.base["test"].count)
        lines += [f"{run}: {line}" for line in analyses.left_out]
        asked += [(run, analyses)] if analyses else []
    with showing_progress(quiet=quiet) as progress:
        loaded: dict[tuple[str, str | None, bool], Any] = {}
        for run, analyses in asked:
            model, tokenizer = _base_of(analyses, model_name, loaded, progress)
            family = anatomy_for_command(model, family_file).family
            analyses.ask(model, tokenizer, run, family=family, progress=progress)
    return lines


def _base_of(analyses: "RunAnalyses", name: str | None, loaded: dict[Any, Any], progress: "Progress") -> Any:
    """Return the model that a run's choice is for, loaded once for all runs of one base."""
    recipe: Recipe = analyses.recipe
    revision = recipe.base.revision if name is None else None
    key = (name or recipe.base.id, revision, analyses.task.labels is not None)
    if key not in loaded:
        loaded.clear()  # one at a time
        loaded[key] = load_for_command(key[0], progress, revision=revision, task=analyses.task)
    return loaded[key]


def _task_of(run: Path, name: str, *, named: bool, shots: int) -> "Task":
    """Return the task that a run was about, which must be the one it was."""
    from strop.errors import UsageError
    from strop.tasks import builtin_tasks

    if not named and name not in builtin_tasks():
        raise UsageError(f"{run} is about {name}, whose file it does not hold: name the file with --task.")
    task = task_for_command(name, shots or None)
    config = json.loads((run / "config.json").read_text(encoding="utf-8"))
    if config["task"]["fingerprint"] != task.fingerprint:
        raise UsageError(
            f"{run} was measured on other examples than task {task.name} has: name its own file with --task."
        )
    return task
