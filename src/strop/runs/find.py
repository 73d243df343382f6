"""What a folder holds that someone named: a finished run, one that was interrupted, a recipe, or nothing of the kind."""

from pathlib import Path

from strop.errors import RunError, UsageError
from strop.runs.folder import is_config_of_run
from strop.runs.result import RunResult


def finished_run(folder: Path) -> RunResult:
    """Read the result of the finished run in a folder.

    Args:
        folder: of the run.

    Raises:
        RunError: there is no finished run in it, or its result cannot be read.
        UsageError: it is a recipe, which holds no figures to be compared.
    """
    if (folder / "result.json").is_file():
        return RunResult.read(folder / "result.json")
    if (folder / "recipe.json").is_file():
        beside = (folder.parent / "result.json").is_file()
        raise UsageError(
            f"{folder} is a recipe, and what a run measured is compared: add --task T, which scores it afresh"
            f"{f', or name its run, {folder.parent}' if beside else ''}."
        )
    raise _neither(folder)


def recipe_folder(folder: Path) -> Path:
    """Return where the recipe of a folder is: the folder itself, or the one inside a finished run.

    Args:
        folder: of a recipe or a run.

    Raises:
        RunError: it is neither, or the run is not finished.
    """
    for candidate in (folder, folder / "recipe"):
        if (candidate / "recipe.json").is_file():
            return candidate
    raise _neither(folder)


def _neither(folder: Path) -> RunError:
    if not folder.exists():
        return RunError(f"There is no folder {folder}: give one of a run (--out) or of a recipe.")
    if folder.is_file():
        return RunError(f"{folder} is a file: give the folder of a run (--out) or of a recipe.")
    if (folder / "config.json").is_file() and is_config_of_run(folder / "config.json"):
        return RunError(f"{folder} holds a run that is not finished: go on with it by --resume, then compare.")
    return RunError(
        f"{folder} is neither a run nor a recipe, for it holds no result.json and no recipe.json: give the folder of one."
    )
