"""Measures before and after an edit: paired gains, and a table of them."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from strop.statistics import Comparison, compare_differences, spell_p_value
from strop.tables import Table


def gain_of_answers(
    base: NDArray[np.bool_], edited: NDArray[np.bool_], groups: NDArray[np.int64] | None = None
) -> dict[str, Any]:
    """Return the shares that are right before and after, with the gain, its interval and p.

    Args:
        base: (examples,), whether each is right.
        edited: (examples,), the same after the edit.
        groups: (examples,), which belong together; None where each stands alone.
    """
    gain = compare_differences(edited.astype(np.float64) - base, groups=groups, right_or_wrong=True)
    return {"base": float(base.mean()), "edited": float(edited.mean()), **gain.to_json()}


def gain_of_numbers(
    base: NDArray[np.float64],
    edited: NDArray[np.float64],
    groups: NDArray[np.int64] | None = None,
    *,
    loss: bool = False,
) -> dict[str, Any]:
    """Return two means, with the gain, its interval and p.

    Args:
        base: (examples,).
        edited: (examples,), the same after the edit.
        groups: (examples,), which belong together; None where each stands alone.
        loss: less is better, so that the gain is by how much they fell.
    """
    gain = compare_differences((edited - base) * (-1 if loss else 1), groups=groups, right_or_wrong=False)
    return {"base": float(base.mean()), "edited": float(edited.mean()), **gain.to_json()}


def gains_table(title: str, measures: Mapping[str, Mapping[str, Any]]) -> Table:
    """Return measures as a table; of a loss the gain is by how much it fell.

    Args:
        title: of the first column.
        measures: name → base and edited figure, and what `Comparison.to_json` returns beside them.
    """
    rows = []
    for name, own in measures.items():
        gain = Comparison.from_json(own)
        low, high = gain.ci95
        before_and_after = (f"{own['base']:.3f}", f"{own['edited']:.3f}")
        gained = (f"{gain.gain:+.3f}", f"{low:+.3f} to {high:+.3f}", spell_p_value(gain.p_value))
        rows.append((name, *before_and_after, *gained))
    return Table("", (title, "base", "LASER", "gain", "95 % interval", "p"), tuple(rows))
