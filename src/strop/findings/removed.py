"""What the components say that a rank reduction removed: LASER's Figure 5, from what was asked once and kept."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from strop.files import write_json
from strop.runs.reading import DAMAGED, reading

REMOVED_FILE = "removed.json"
FORMAT = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShareKept:
    """The model with only the smallest components of a matrix."""

    share: float
    """Of the components, the smallest ones, that are kept; 1 is the model as it was."""
    similarity: float
    """Mean cosine of what it answers with what is right."""
    ci95: tuple[float, float]
    right: float
    """Share of answers that are right, 0 to 1."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class AnswerByShare:
    """One example, and what is answered at each share."""

    prompt: str
    wanted: str
    said: tuple[str, ...]
    """Of each share, in their order."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RemovedComponents:
    """What the smallest components of one edited matrix say, on examples that the edit fixed."""

    matrix: str
    """Its address in words."""
    rank: int
    """Components that the edit keeps, the largest."""
    full_rank: int
    examples: int
    """How many were asked."""
    fixed: bool
    """They are those that are wrong without the edit and right with it; else the first ones, for there are none."""
    edited_similarity: float
    """The same cosine with the edit on."""
    shares: tuple[ShareKept, ...]
    """The fewest components first."""
    answers: tuple[AnswerByShare, ...]
    """Some of them."""

    def to_json(self) -> dict[str, Any]:
        """Return what a file holds."""
        return {"format": FORMAT, **dataclasses.asdict(self)}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "RemovedComponents":
        """Return what a file holds.

        Raises:
            KeyError: a field is missing.
            TypeError: one is unknown.
        """
        fields = {name: own for name, own in content.items() if name != "format"}
        shares = tuple(ShareKept(**{**own, "ci95": tuple(own["ci95"])}) for own in content["shares"])
        answers = tuple(AnswerByShare(**{**own, "said": tuple(own["said"])}) for own in content["answers"])
        return cls(**{**fields, "shares": shares, "answers": answers})


def write_removed(folder: Path, found: RemovedComponents) -> Path:
    """Keep it in a run's folder, and return the file's path.

    Args:
        folder: of the run.
        found: what the removed components say.
    """
    write_json(folder / REMOVED_FILE, found.to_json())
    return folder / REMOVED_FILE


def read_removed(folder: Path) -> RemovedComponents | None:
    """Read what a run's folder holds of it; None where nobody asked.

    Args:
        folder: of the run.

    Raises:
        RunError: the file cannot be read.
    """
    path = folder / REMOVED_FILE
    if not path.is_file():
        return None
    with reading(path, otherwise=DAMAGED):
        return RemovedComponents.from_json(json.loads(path.read_text(encoding="utf-8")))
