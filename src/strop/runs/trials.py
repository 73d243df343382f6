"""The trials of a run, read out of its study.db as SQLite alone reads it: a queue that nobody works on any more, or still does."""

import contextlib
import dataclasses
import json
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from strop.errors import RunError

STUDY_FILE = "study.db"
_FINISHED = """
SELECT studies.study_name, attributes.key, attributes.value_json, trials.trial_id
FROM trials
JOIN studies ON studies.study_id = trials.study_id
JOIN trial_user_attributes AS attributes ON attributes.trial_id = trials.trial_id
WHERE trials.state = 'COMPLETE' AND attributes.key IN ('key', 'scores')
ORDER BY trials.trial_id
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class KeptTrial:
    """One candidate, and what it scored."""

    study: str
    """The study's name."""
    method: str
    """Of the candidate; `base` is the model as it was, `start` the one with the recipe a run begins with."""
    stage: str
    round: int
    """Which addition to the recipe was looked for; of a training, the epoch."""
    split: str
    examples: int
    """How many it was scored on."""
    candidate: Mapping[str, Any]
    """Its settings by name; none is "no edit"."""
    accuracy: float | None
    loss: float
    """Nats per answer token."""
    metric: tuple[str, float] | None = None
    macro: float | None = None
    elapsed_seconds: float = 0.0
    """From the run's beginning, sittings added up."""
    below: tuple[Mapping[str, Any], ...] = ()
    """The settings of the candidates it was tried on top of."""

    @classmethod
    def of(cls, study: str, key: Mapping[str, Any], scores: Mapping[str, Any]) -> "KeptTrial":
        """Return the trial of what the study holds of it.

        Raises:
            KeyError: a field is missing.
        """
        metric = scores.get("metric")
        return cls(
            study=study,
            **{name: key[name] for name in ("method", "stage", "round", "split", "examples", "candidate")},
            accuracy=scores["accuracy"],
            loss=float("nan") if scores["loss"] is None else scores["loss"],
            metric=None if metric is None else (str(metric[0]), float(metric[1])),
            macro=scores.get("macro"),
            elapsed_seconds=scores.get("elapsed_seconds", 0.0),
            below=tuple(key.get("below", ())),
        )


def read_trials(folder: Path) -> tuple[KeptTrial, ...]:
    """Read a run's finished trials in the order of the queue; none where it keeps its study elsewhere.

    Neither Optuna nor torch is needed, and nothing is written.

    Args:
        folder: of the run.

    Raises:
        RunError: the file is no study.
    """
    path = folder / STUDY_FILE
    if not path.is_file():
        return ()
    found: dict[int, dict[str, Any]] = {}
    try:
        for study, key, value, trial in _rows(path):
            own = found.setdefault(trial, {"study": study})
            own[key] = json.loads(value)
        return tuple(
            KeptTrial.of(own["study"], json.loads(own["key"]), own["scores"])
            for own in found.values()
            if "key" in own and "scores" in own
        )
    except (sqlite3.Error, ValueError, TypeError, KeyError) as error:
        raise RunError(f"{path} cannot be read as a study ({error}): copy the run's folder anew.") from None


def _rows(path: Path) -> list[tuple[str, str, str, int]]:
    """Return what the study holds, and leave the folder as it is: a journal beside the file is read with it where there is one."""
    address = f"file:{quote(str(path.absolute()))}?mode=ro"
    if not path.with_name(f"{path.name}-wal").exists():  # else one would be made
        address += "&immutable=1"
    with contextlib.closing(sqlite3.connect(address, uri=True)) as connection:
        return connection.execute(_FINISHED).fetchall()
