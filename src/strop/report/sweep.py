"""A sweep as a table: the best layer of each matrix type at each share of the rank."""

from collections.abc import Mapping

from strop.findings import SweepTable
from strop.tables import Table


def sweep_table(found: SweepTable) -> Table:
    """Return the lowest loss of each matrix type at each share of the rank that is kept, and the layer it is of.

    Args:
        found: by `strop.findings.loss_by_layer_and_rank`.

    >>> found = SweepTable(base=2.5, examples=8, losses={"up": {0.1: {0: 3.0, 1: 2.0}, 0.5: {1: 2.25}}})
    >>> table = sweep_table(found)
    >>> table.columns, table.rows
    (('matrix type', '10 %', '50 %'), (('up', '2.000 (1)', '2.250 (1)'),))
    """
    shares = sorted({share for own in found.losses.values() for share in own})
    return Table(
        "Lowest loss, and of which layer, by the share of the rank that is kept",
        ("matrix type", *(f"{100 * share:.3g} %" for share in shares)),
        tuple((name, *(_lowest(own.get(share, {})) for share in shares)) for name, own in found.losses.items()),
    )


def _lowest(layers: Mapping[int, float]) -> str:
    if not layers:
        return "–"
    layer = min(layers, key=lambda each: layers[each])
    return f"{layers[layer]:.3f} ({layer})"
