"""The folder one execution leaves behind."""

import datetime
import json
import platform
import shutil
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from strop.errors import RunError
from strop.files import write_json
from strop.runs.environment import describe_environment, versions
from strop.runs.lock import is_unused
from strop.runs.result import RunResult

SPELLINGS = {"base_model.id", "base_model.revision"}
"""What a config calls the same model by: its architecture and its fingerprint say which one it is."""


class RunFolder:
    """config.json, environment.json, study.db, log.txt from the start; recipe/, answers.jsonl and result.json at the end.

    result.json is written last, so a folder that has one is a finished run.
    """

    def __init__(self, path: Path, *, run_id: str, begun_earlier: bool = False) -> None:
        self._begun_earlier = begun_earlier
        self.path = path
        self.id = run_id
        """A name no other run has, kept in config.json."""

    @classmethod
    def start(
        cls, path: Path, config: Mapping[str, Any], *, resume: bool, compute: Mapping[str, Any] | None = None
    ) -> "RunFolder":
        """Begin a run, or go on with one that was interrupted.

        Args:
            path: of the folder.
            config: all that the answer depends on; an interrupted run must have begun with the same.
            resume: go on with what is there; begin anew if nothing is.
            compute: threads and devices, for environment.json.

        Raises:
            RunError: the folder is in use and `resume` is not given, or what is there began with another config.
        """
        written = path / "config.json"
        if written.is_file() and not resume and not is_config_of_run(written):
            raise RunError(f"{path} is there already and is not a run: choose another --out.")
        if written.is_file():
            if not resume:
                finished = (path / "result.json").is_file()
                state = "holds a finished run" if finished else "holds a run that was interrupted"
                raise RunError(f"{path} {state}: go on with it by --resume, or choose another --out.")
            run = cls(path, run_id=_same_run(written, config), begun_earlier=True)
            run._describe_environment_once(compute or {})
            run.log(f"resumed on {platform.platform()} with {versions()}")
            return run
        if path.is_file() or (path.is_dir() and not is_unused(path)):
            raise RunError(f"{path} is there already and is not a run: choose another --out.")
        path.mkdir(parents=True, exist_ok=True)
        run = cls(path, run_id=uuid.uuid4().hex)
        write_json(written, {"run": run.id, **config})  # first, so that whatever fails later can be resumed
        run._describe_environment_once(compute or {})
        run.log("started")
        return run

    def discard_if_empty(self) -> None:
        """Remove a run that this sitting began and that never got as far as a trial; one begun earlier stays."""
        if not self._begun_earlier and not any(
            (self.path / name).exists() for name in ("study.db", "recipe", "result.json")
        ):
            shutil.rmtree(self.path, ignore_errors=True)

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

    @property
    def recipe_folder(self) -> Path:
        """Where a finished run's recipe is."""
        return self.path / "recipe"

    def finish(
        self,
        write_recipe: Callable[[Path], object],
        result: RunResult,
        *,
        write_beside: Callable[[Path], object] = lambda folder: None,
    ) -> None:
        """Write the recipe, what is kept beside the figures, then the result.

        Args:
            write_recipe: writes the recipe into the folder it is given, which is not there yet.
            result: the figures.
            write_beside: writes what else is kept into the run's folder; nothing by default.
        """
        # the result of a smaller budget goes first, so that no recipe stands beside another's figures
        (self.path / "result.json").unlink(missing_ok=True)
        shutil.rmtree(self.recipe_folder, ignore_errors=True)
        write_recipe(self.recipe_folder)
        write_beside(self.path)
        write_json(self.path / "result.json", result.to_json())
        self.log("finished")

    def result(self) -> RunResult:
        """Read the finished run's result."""
        return RunResult.read(self.path / "result.json")

    def _describe_environment_once(self, compute: Mapping[str, Any]) -> None:
        path = self.path / "environment.json"
        if not path.is_file():
            write_json(path, describe_environment(compute))


def is_config_of_run(path: Path) -> bool:
    """Return whether a config.json is a run's, and not a model's; one that cannot be read is taken for a run's."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return True
    return isinstance(content, dict) and "run" in content


def moment_of(folder: Path) -> datetime.datetime | None:
    """Return the moment that a run's prompts were written for; None where they name none, or there is no run to go on with.

    Args:
        folder: of the run; what is wrong with it is said where the run is gone on with.
    """
    try:
        return datetime.datetime.fromisoformat(json.loads((folder / "config.json").read_text(encoding="utf-8"))["now"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


CHANGED = {
    "task.fingerprint": "examples: the task file or its data has changed",
    "reads.prompts": "prompts: the tokenizer or its chat template has changed",
    "reads.images": "inputs: the image processor has changed",
}
"""What a digest in the config stands for; prompts are looked at last, for they change with the examples too."""


OPTIONS = {
    "guards": "--guard",
    "fractions": "--fraction",
    "scopes": "--scope",
    "tied": "--untied",
    "prefix_budget_bytes": "--prefix-budget-mb",
    "edits": None,
    "max_grad_norm": None,
}
"""The options of the command line that are not called as the setting of a plan is; None where there is none."""


def _same_run(path: Path, config: Mapping[str, Any]) -> str:
    """Return the id of the run that began with this config.

    Raises:
        RunError: what is there cannot be read, or began with other settings; the message names the first.
    """
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
        run_id = str(before.pop("run"))
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read, so the run cannot be resumed: {error}.") from None
    except (AttributeError, KeyError, TypeError):
        raise RunError(f"{path} is not a run's config, so the run cannot be resumed: choose another --out.") from None
    then, now = _flat(before), _flat(json.loads(json.dumps(config)))
    asked = {key for key in now if "reads" in before or not key.startswith("reads.")}  # older runs say nothing of it
    differing = (set(then) | asked) - SPELLINGS
    for key in sorted(differing, key=lambda key: (key.startswith("reads."), key)):
        if then.get(key) == now.get(key):
            continue
        if key in CHANGED:
            raise RunError(
                f"{path.parent} began with other {CHANGED[key]} since; resume with what it began with, or choose another --out."
            )
        raise RunError(
            f"{path.parent} began with {key} = {then.get(key)!r}, and now it is {now.get(key)!r}: resume with the "
            f"same settings{_option_of(key)}, or choose another --out."
        )
    return run_id


def _option_of(key: str) -> str:
    """Return what to say of the option that a plan's setting is given by: nothing where there is none."""
    if not key.startswith("plan."):
        return ""
    name = key.split(".")[1]
    option = OPTIONS.get(name, f"--{name.replace('_', '-')}")
    return f" (this one is {option})" if option is not None else ""


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings as one level of dotted names."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat
