"""All that a run's folder holds, read once: what is missing is said, and what is damaged is told."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from strop.errors import RunError, UsageError
from strop.findings import FactInWords, RemovedComponents, read_paraphrases, read_removed
from strop.runs import (
    EditedMatrix,
    KeptAnswer,
    KeptTrial,
    Leaderboard,
    RunResult,
    read_answers,
    read_spectra,
    read_trials,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunFiles:
    """What one execution left, as far as it is there."""

    folder: Path
    config: Mapping[str, Any]
    """Empty where there is none."""
    environment: Mapping[str, Any]
    result: RunResult | None
    """None of a run that is not finished."""
    answers: tuple[KeptAnswer, ...] = ()
    trials: tuple[KeptTrial, ...] = ()
    spectra: tuple[EditedMatrix, ...] = ()
    leaderboard: Leaderboard | None = None
    paraphrases: tuple[FactInWords, ...] = ()
    removed: RemovedComponents | None = None

    @property
    def name(self) -> str:
        """Of its folder."""
        return self.folder.resolve().name

    @property
    def missing(self) -> tuple[str, ...]:
        """What a report would show and cannot, and why, a sentence each."""
        lines = []
        if self.result is None:
            lines.append("The run is not finished: there is no result.json, and no held-out figure; go on by --resume.")
        elif not self.answers:
            lines.append(
                "There are no single answers (answers.jsonl) in the folder, as runs of older versions have none: examples, and "
                "gains by frequency, are left out."
            )
        if not self.trials and self.config.get("storage"):
            lines.append(f"The trials are kept in {self.config['storage']} and are not shown here.")
        return tuple(lines)

    @classmethod
    def read(cls, folder: Path) -> "RunFiles":
        """Read a run's folder.

        Args:
            folder: of the run, finished or not.

        Raises:
            RunError: it holds no run, or a file in it is damaged.
            UsageError: it is a recipe.
        """
        has_result = (folder / "result.json").is_file()
        leaderboard = folder / "leaderboard.json"
        config = _mapping(folder / "config.json")
        if not has_result and not leaderboard.is_file() and "run" not in config:
            raise _no_run(folder)
        return cls(
            folder=folder,
            config=config,
            environment=_mapping(folder / "environment.json"),
            result=RunResult.read(folder / "result.json") if has_result else None,
            answers=read_answers(folder),
            trials=read_trials(folder),
            spectra=read_spectra(folder),
            leaderboard=Leaderboard.read(leaderboard) if leaderboard.is_file() else None,
            paraphrases=read_paraphrases(folder),
            removed=read_removed(folder),
        )


def _mapping(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read ({error}): copy the run's folder anew.") from None
    return content if isinstance(content, dict) else {}


def _no_run(folder: Path) -> RunError | UsageError:
    if not folder.exists():
        return RunError(f"There is no folder {folder}: give one that a run left (--out).")
    if not folder.is_dir():
        return RunError(f"{folder} is a file: give the folder that a run left (--out).")
    if (folder / "recipe.json").is_file():
        beside = f", {folder.parent}" if (folder.parent / "result.json").is_file() else ""
        return UsageError(f"{folder} is a recipe, and a report is of a run: give the folder of its run{beside}.")
    return RunError(
        f"{folder} is no run, for it holds no config.json and no result.json of one: give one that a run left."
    )
