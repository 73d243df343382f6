"""result.json: what a run found, in figures."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from strop.errors import RunError

FORMAT = 1


@dataclasses.dataclass(frozen=True)
class RunResult:
    """The figures of one finished run, field by field as result.json holds them."""

    command: str
    """search, prune or train."""
    seed: int
    base_model: dict[str, Any]
    """id and fingerprint."""
    task: dict[str, Any]
    """name and counts of examples used."""
    base: dict[str, dict[str, Any]]
    """split → accuracy, loss, count of the model as it was."""
    edited: dict[str, dict[str, Any]]
    """split → the same of the model with the recipe applied."""
    comparison: dict[str, dict[str, Any]]
    """split → gain, ci95, p_value, fixed, broken; `test_over_start` beside it where the run set out from a recipe."""
    interventions: list[dict[str, Any]]
    cost: dict[str, Any]
    """wall_seconds, evaluations, tokens, peak_rss_bytes."""
    versions: dict[str, str]
    start: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    """split → the same of the model with the recipe the run set out from; empty without one."""
    metric: str | None = None
    """What gains are measured in where a classifier is judged, and the name of its figure beside accuracy and loss."""
    head: dict[str, Any] | None = None
    """labels and parameters of the classification head trained beside the interventions; None without one."""

    def to_json(self) -> dict[str, Any]:
        """Return the content of result.json."""
        content = {"format": FORMAT, **dataclasses.asdict(self)}
        for name in ("start", "metric", "head"):
            if not content[name]:
                del content[name]
        return content

    @classmethod
    def read(cls, path: Path) -> "RunResult":
        """Read a result.json.

        Raises:
            RunError: it is not there or cannot be read.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            content.pop("format")
            return cls(**content)
        except OSError as error:
            raise RunError(f"{path} cannot be read: {error.strerror}.") from None
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise RunError(f"{path} is not a result of this version: {error}.") from None
