"""Sets of component indices as a short text: `0-3,17`."""

import itertools
import re
from collections.abc import Sequence

from strop.errors import UsageError, shortened

MOST = 2**20
"""How many components a matrix has at most."""
_PART = re.compile(r"(\d{1,18})(?:-(\d{1,18}))?", re.ASCII)


def spell_indices(indices: Sequence[int]) -> str:
    """Return ascending indices as text.

    >>> spell_indices((0, 1, 2, 3, 17))
    '0-3,17'
    """
    runs = [
        [index for _, index in run]
        for _, run in itertools.groupby(enumerate(indices), key=lambda entry: entry[1] - entry[0])
    ]
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def parse_indices(text: str, *, count: int = MOST) -> tuple[int, ...]:
    """Return the indices a text such as `0-3,17` names, ascending.

    Args:
        text: of that form.
        count: of the components there are; an index lies below it.

    Raises:
        UsageError: the text is not of that form, or names an index twice or one that is not there.

    >>> parse_indices("0-3,17")
    (0, 1, 2, 3, 17)
    """
    indices: list[int] = []
    for part in text.split(",") if text else []:
        found = _PART.fullmatch(part)
        if found is None:
            raise UsageError(f"'{shortened(part, most=40)}' does not name components; write them as 0-3,17.")
        first, last = int(found[1]), int(found[2] or found[1])
        if last < first or (indices and first <= indices[-1]):
            raise UsageError(
                f"'{shortened(text, most=40)}' does not name components in ascending order, each once; write them as 0-3,17."
            )
        if last >= count:
            raise UsageError(f"'{shortened(part, most=40)}' is named, and the matrix has components 0 to {count - 1}.")
        indices += range(first, last + 1)
    return tuple(indices)
