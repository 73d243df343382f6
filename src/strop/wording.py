"""Interventions and figures in words, from the plain entries a recipe or a result file holds; it needs no torch."""

from collections.abc import Mapping, Sequence
from typing import Any

Entry = Mapping[str, Any]


def in_words(entries: Sequence[Entry], *, head: Entry | None = None) -> list[str]:
    """Return lines that say what interventions do: one for each, but prunings summed by matrix type and learned edits by kind.

    Args:
        entries: as `Recipe.describe` gives them.
        head: as `Recipe.describe_head` gives it.

    >>> key = {"method": "singular_value_pruning", "matrix_type": "key", "full_rank": 64, "bias": "mean"}
    >>> in_words([{**key, "layer": 0, "removed_count": 3}, {**key, "layer": 5, "removed_count": 1}])
    ['key: 4 of 128 singular values removed in 2 layers (mean bias)']
    """
    together: dict[tuple[Any, ...], list[Entry]] = {}
    for number, entry in enumerate(entries):
        together.setdefault(_kind(entry) or (number,), []).append(entry)
    return [*(_line(group) for group in together.values()), *([_head(head)] if head is not None else [])]


def _head(head: Entry) -> str:
    """Say what a classification head tells apart; its numbers are not among the learned parameters of the edits."""
    labels = head["labels"]
    shown = ", ".join(labels[:4]) + (", …" if len(labels) > 4 else "")
    what = f"of {len(labels)} labels ({shown})" if labels else "of one number"
    return f"a classification head {what}, with {head['parameters']:,} parameters of its own"


def _kind(entry: Entry) -> tuple[Any, ...]:
    """Return what entries that share a line have in common; nothing where an entry has a line of its own."""
    if entry["method"] == "singular_value_pruning":
        return (entry["matrix_type"], entry["bias"])
    if "stream" in entry:
        return tuple(str(entry[name]) for name in ("method", "stream", "positions", "rank", "activation"))
    return ()


def _line(group: list[Entry]) -> str:
    if group[0]["method"] == "singular_value_pruning":
        return _pruned(group)
    return _learned(group) if "stream" in group[0] else _reduced(group[0])


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


def _learned(entries: Sequence[Entry]) -> str:
    first = entries[0]
    layers = sorted({entry["layer"] for entry in entries})
    together = len(layers) == layers[-1] - layers[0] + 1
    shown = f"{layers[0]}-{layers[-1]}" if together else ",".join(map(str, layers))
    where = f"layers {shown}" if len(layers) > 1 else f"layer {layers[0]}"
    parameters = sum(entry["parameters"] for entry in entries)
    bent = "" if first["activation"] == "linear" else f", {first['activation']}"
    named = f" ({', '.join(first['subspaces'])})" if first.get("subspaces") else ""
    return (
        f"{where} {first['stream']}: {first['method']} of rank {first['rank']}{bent}{named} at {first['positions']} "
        f"({parameters:,} learned parameters)"
    )


def _reduced(entry: Entry) -> str:
    stack = f"{entry['stack']} " if "stack" in entry else ""
    part = "".join(f" {name} {entry[name]}" for name in ("head", "expert") if name in entry)
    return (
        f"{stack}layer {entry['layer']} {entry['matrix_type']}{part}: {entry['method'].replace('_', ' ')} "
        f"to rank {entry['rank']} ({100 * entry['rank_fraction']:.1f} % kept)"
    )
