"""Interventions in words, from the entries that a recipe or a result file holds."""

from collections.abc import Sequence
from typing import Any

from strop.interventions.head import head_in_words
from strop.interventions.interfaces import Entry
from strop.interventions.methods import METHODS, class_of


def summarize(entries: Sequence[Entry], *, head: Entry | None = None) -> list[str]:
    """Return lines that say what interventions do, in the order of the first entry that each speaks of.

    Args:
        entries: as `Recipe.describe` gives them.
        head: as `Recipe.describe_head` gives it.

    Raises:
        RecipeError: an entry is of a method this version does not know.

    >>> key = {"method": "singular_value_pruning", "matrix_type": "key", "full_rank": 64, "bias": "mean"}
    >>> summarize([{**key, "layer": 0, "removed_count": 3}, {**key, "layer": 5, "removed_count": 1}])
    ['key: 4 of 128 singular values removed in 2 layers (mean bias)']
    """
    lines: dict[int, str] = {}
    for method, places in _by_method(entries).items():
        own = method.summarize([entries[place] for place in places])
        lines |= {places[index]: line for index, line in own.items()}
    return [*(lines[place] for place in sorted(lines)), *([head_in_words(head)] if head is not None else [])]


def brief(entries: Sequence[Entry]) -> str:
    """Return in a few words what interventions do to one matrix, those of its heads summed.

    Args:
        entries: all of the same layer and matrix type.

    >>> brief([{"method": "rank_reduction", "rank": 90}, {"method": "singular_value_pruning", "removed_count": 3}])
    'rank 90, 3 removed'
    """
    by_method = _by_method(entries)
    ordered = [*(method for method in METHODS if method in by_method), *(m for m in by_method if m not in METHODS)]
    parts = (method.brief([entries[place] for place in by_method[method]]) for method in ordered)
    return ", ".join(part for part in parts if part)


def _by_method(entries: Sequence[Entry]) -> dict[Any, list[int]]:
    places: dict[Any, list[int]] = {}
    for place, entry in enumerate(entries):
        places.setdefault(class_of(entry.get("method")), []).append(place)
    return places
