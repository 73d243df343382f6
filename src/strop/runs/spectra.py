"""spectra.json: what each edited matrix was, as singular values, and by what each of them was multiplied."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from strop.files import write_text
from strop.plain_json import to_json
from strop.runs.reading import DAMAGED, reading

SPECTRA_FILE = "spectra.json"
FORMAT = 1
LINE = 20_000
"""Characters of a line of the file: a matrix on one."""
MOST_VALUES = 256
"""Singular values of a matrix that are kept in the file; of a larger one every so many."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class EditedMatrix:
    """One matrix, and what an edit did to its singular values: σ_i became scale_i · σ_i."""

    site: Mapping[str, Any]
    """Its address, as a recipe spells it."""
    method: str
    count: int
    """Singular values it has: min(out, in)."""
    removed: int
    """How many are 0 now."""
    mean_change: float
    """Mean of |scale_i − 1| over all of them."""
    energy_kept: float | None = None
    """Σ (scale_i σ_i)² / Σ σ_i²; None where the values were not looked up."""
    indices: tuple[int, ...] = ()
    """Places of the values that are kept here, counted from 0; all, or every so many. None where they were not looked up."""
    values: tuple[float, ...] = ()
    """σ at these places, descending."""
    scales: tuple[float, ...] = ()
    """By what they were multiplied."""

    @property
    def name(self) -> str:
        """Its address in words, such as `layer 11 gate`."""
        stack = f"{self.site['stack']} " if "stack" in self.site else ""
        parts = "".join(f" {name} {self.site[name]}" for name in ("head", "expert") if name in self.site)
        return f"{stack}layer {self.site['layer']} {self.site['matrix_type']}{parts}"

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "EditedMatrix":
        """Return the matrix a file holds.

        Raises:
            KeyError: a field is missing.
            TypeError: one is unknown.
        """
        lists = {name: tuple(content.get(name, ())) for name in ("indices", "values", "scales")}
        return cls(**{**content, **lists})


def thinned(count: int) -> list[int]:
    """Return places among so many values that are kept: all, or `MOST_VALUES` of them at even distances, both ends included.

    >>> thinned(3), len(thinned(4096)), thinned(4096)[-1]
    ([0, 1, 2], 256, 4095)
    """
    if count <= MOST_VALUES:
        return list(range(count))
    return [round(place * (count - 1) / (MOST_VALUES - 1)) for place in range(MOST_VALUES)]


def write_spectra(folder: Path, matrices: Sequence[EditedMatrix]) -> Path:
    """Write a run's edited matrices in one step, and return the file's path.

    Args:
        folder: of the run.
        matrices: that were edited.
    """
    path = folder / SPECTRA_FILE
    content = {"format": FORMAT, "matrices": [dataclasses.asdict(own) for own in matrices]}
    write_text(path, to_json(content, width=LINE))
    return path


def read_spectra(folder: Path) -> tuple[EditedMatrix, ...]:
    """Read a run's edited matrices; none where it edited no matrix, is of an older version, or is not finished.

    Args:
        folder: of the run.

    Raises:
        RunError: the file cannot be read.
    """
    path = folder / SPECTRA_FILE
    if not path.is_file():
        return ()
    with reading(path, otherwise=DAMAGED):
        content = json.loads(path.read_text(encoding="utf-8"))
        return tuple(EditedMatrix.from_json(own) for own in content["matrices"])
