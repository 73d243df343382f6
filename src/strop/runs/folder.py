"""The folder one execution leaves behind."""

import datetime
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from strop.errors import RunError
from strop.files import write_json
from strop.recipe import Recipe, write_recipe
from strop.runs.environment import describe_environment
from strop.runs.result import RunResult


class RunFolder:
    """config.json, environment.json, study.db, log.txt from the start; recipe/ and result.json at the end.

    result.json is written last, so a folder that has one is a finished run.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def start(cls, path: Path, config: Mapping[str, Any], *, resume: bool) -> "RunFolder":
        """Begin a run, or go on with one that was interrupted.

        Args:
            path: of the folder.
            config: all that the answer depends on; an interrupted run must have begun with the same.
            resume: go on with what is there; begin anew if nothing is.

        Raises:
            RunError: the folder is in use and `resume` is not given, or what is there began with another config.
        """
        run = cls(path)
        written = path / "config.json"
        if written.is_file():
            if not resume:
                state = "holds a finished run" if run.finished else "holds a run that was interrupted"
                raise RunError(f"{path} {state}: go on with it by --resume, or choose another --out.")
            run._refuse_other(config)
            run.log("resumed")
            return run
        if path.is_file() or (path.is_dir() and any(path.iterdir())):
            raise RunError(f"{path} is there already and is not a run: choose another --out.")
        path.mkdir(parents=True, exist_ok=True)
        write_json(path / "environment.json", describe_environment())
        write_json(written, config)
        run.log("started")
        return run

    @property
    def finished(self) -> bool:
        """Whether the run came to its end."""
        return (self.path / "result.json").is_file()

    @property
    def study_url(self) -> str:
        """Where the run's trials are kept unless another storage is named."""
        return f"sqlite:///{(self.path / 'study.db').absolute()}"

    def log(self, line: str) -> None:
        """Append a line to log.txt with the time."""
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        with (self.path / "log.txt").open("a", encoding="utf-8") as log:
            log.write(f"{now} {line}\n")

    def finish(self, recipe: Recipe, result: RunResult) -> None:
        """Write the recipe, then the result."""
        shutil.rmtree(self.path / "recipe", ignore_errors=True)
        write_recipe(recipe, self.path / "recipe")
        write_json(self.path / "result.json", result.to_json())
        self.log("finished")

    def result(self) -> RunResult:
        """Read the finished run's result."""
        return RunResult.read(self.path / "result.json")

    def recipe(self) -> Recipe:
        """Read the finished run's recipe."""
        return Recipe.load(self.path / "recipe")

    def _refuse_other(self, config: Mapping[str, Any]) -> None:
        path = self.path / "config.json"
        try:
            before = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise RunError(f"{path} cannot be read, so the run cannot be resumed: {error}.") from None
        now = json.loads(json.dumps(config))
        for key in sorted(set(before) | set(now)):
            if before.get(key) != now.get(key):
                raise RunError(
                    f"{self.path} began with {key} = {before.get(key)!r}, and now it is {now.get(key)!r}: resume with the "
                    "same settings, or choose another --out."
                )
