"""Measures before and after an edit, as a table."""

from collections.abc import Mapping
from typing import Any

from strop.statistics import Comparison, spell_p_value
from strop.tables import Table


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
