"""What each edited matrix was, and what was taken of it."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from strop.runs import EditedMatrix


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpectrumRow:
    """One edited matrix in figures."""

    name: str
    method: str
    count: int
    """Singular values it has."""
    removed: int
    """How many of them are gone."""
    mean_change: float
    """Mean of |σ'_i / σ_i − 1|."""
    energy_kept: float | None
    """Σ σ'² / Σ σ²; None where its values were not looked up."""
    effective_rank_before: float | None
    """exp of the entropy of σ / Σσ (Roy and Vetterli, 2007), from the values that are kept; None where there are none."""
    effective_rank_after: float | None


def spectrum_rows(matrices: Sequence[EditedMatrix]) -> tuple[SpectrumRow, ...]:
    """Return a row for each edited matrix, in their order.

    Where every so many values are kept, each stands for those around it, so that the effective rank is close and not exact.

    Args:
        matrices: of a run.

    >>> matrix = EditedMatrix(site={"layer": 1, "matrix_type": "up"}, method="rank_reduction", count=2, removed=1,
    ...                       mean_change=0.5, energy_kept=0.5, indices=(0, 1), values=(1.0, 1.0), scales=(1.0, 0.0))
    >>> (row,) = spectrum_rows([matrix])
    >>> row.name, round(row.effective_rank_before, 6), round(row.effective_rank_after, 6)
    ('layer 1 up', 2.0, 1.0)
    """
    return tuple(
        SpectrumRow(
            name=own.name,
            method=own.method,
            count=own.count,
            removed=own.removed,
            mean_change=own.mean_change,
            energy_kept=own.energy_kept,
            effective_rank_before=_effective_rank(np.array(own.values), own.count) if own.values else None,
            effective_rank_after=(
                _effective_rank(np.array(own.values) * np.array(own.scales), own.count) if own.values else None
            ),
        )
        for own in matrices
    )


def _effective_rank(values: NDArray[np.float64], count: int) -> float:
    total = float(np.abs(values).sum())
    if total == 0:
        return 0.0
    shares = np.abs(values) / total
    shares = shares[shares > 0]
    return float(np.exp(-(shares * np.log(shares)).sum())) * count / len(values)
