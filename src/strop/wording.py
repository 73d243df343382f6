"""A recipe's interventions in words, from the plain entries a recipe or a result file holds; it needs no torch."""

from collections.abc import Mapping, Sequence
from typing import Any

Entry = Mapping[str, Any]


def in_words(entries: Sequence[Entry]) -> list[str]:
    """Return lines that say what interventions do: one for each, but prunings summed by matrix type.

    Args:
        entries: as `Recipe.describe` gives them.

    >>> key = {"method": "singular_value_pruning", "matrix_type": "key", "full_rank": 64, "bias": "mean"}
    >>> in_words([{**key, "layer": 0, "removed_count": 3}, {**key, "layer": 5, "removed_count": 1}])
    ['key: 4 of 128 singular values removed in 2 layers (mean bias)']
    """
    together: dict[tuple[Any, ...], list[Entry]] = {}
    for number, entry in enumerate(entries):
        summed = entry["method"] == "singular_value_pruning"
        together.setdefault((entry["matrix_type"], entry["bias"]) if summed else (number,), []).append(entry)
    return [_pruned(group) if len(key) == 2 else _reduced(group[0]) for key, group in together.items()]


def of_one_matrix(entries: Sequence[Entry]) -> str:
    """Return in a few words what interventions do to one matrix, those of its heads summed.

    Args:
        entries: all of the same layer and matrix type.

    >>> of_one_matrix([{"method": "rank_reduction", "rank": 90}, {"method": "singular_value_pruning", "removed_count": 3}])
    'rank 90, 3 removed'
    """
    parts = [f"rank {entry['rank']}" for entry in entries if entry["method"] == "rank_reduction"]
    removed = sum(entry["removed_count"] for entry in entries if entry["method"] == "singular_value_pruning")
    return ", ".join([*parts, *([f"{removed:,} removed"] if removed else [])])


def _pruned(entries: Sequence[Entry]) -> str:
    first = entries[0]
    removed, full_rank = (sum(entry[name] for entry in entries) for name in ("removed_count", "full_rank"))
    layers = {entry["layer"] for entry in entries}
    where = f"{len(layers)} layers" if len(layers) > 1 else f"layer {first['layer']}"
    bias = "" if first["bias"] == "none" else f" ({first['bias']} bias)"
    return f"{first['matrix_type']}: {removed:,} of {full_rank:,} singular values removed in {where}{bias}"


def _reduced(entry: Entry) -> str:
    head = f" head {entry['head']}" if "head" in entry else ""
    return (
        f"layer {entry['layer']} {entry['matrix_type']}{head}: {entry['method'].replace('_', ' ')} "
        f"to rank {entry['rank']} ({100 * entry['rank_fraction']:.1f} % kept)"
    )
