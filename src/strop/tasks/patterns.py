"""Regular expressions of a task file: which are allowed, and a search that ends."""

import math
import re

import regex

from strop.errors import EndlessError, quoted, shortened

PATIENCE_SECONDS = 2.0
"""For one search, which takes microseconds unless a pattern tries every way of parting a text."""
LONGEST = 500
"""Characters of a pattern."""
MOST_REPEATS = 10_000
"""All counted repeats of a pattern times each other."""
COUNTED = re.compile(r"\{(\d*),?(\d*)\}")


def check_pattern(pattern: str) -> None:
    """Raise ValueError if a pattern is no regular expression of Python, or takes long to compile.

    Args:
        pattern: as it stands in a task file.
    """
    shown = quoted(pattern)
    if len(pattern) > LONGEST:
        raise ValueError(f"a pattern has up to {LONGEST} characters, and this one {len(pattern):,}")
    repeats = COUNTED.findall(pattern)
    counts = [min(max(map(int, filter(None, pair)), default=1), MOST_REPEATS + 1) for pair in repeats]
    if math.prod(max(count, 1) for count in counts) > MOST_REPEATS:
        most = max((number for pair in repeats for number in pair if number), key=int)
        raise ValueError(
            f"{shown}: its repeats such as {{{shortened(most, most=20)}}} come to more than {MOST_REPEATS:,} together"
        )
    try:
        re.compile(pattern)
        regex.compile(pattern, flags=regex.VERSION0)
    except (re.error, regex.error) as error:
        raise ValueError(f"{shown} is not a regular expression: {error}") from None
    except (RecursionError, OverflowError):
        raise ValueError(f"{shown} is nested too deeply") from None


def search(pattern: str, text: str) -> str | None:
    r"""Return a pattern's first group in a text, or its whole match where it has none; None where it is not found.

    Args:
        pattern: that `check_pattern` allows.
        text: to search.

    Raises:
        EndlessError: it takes longer than `PATIENCE_SECONDS`.

    >>> search(r"is (\w+)", "it is so"), search("[A-E]", "none")
    ('so', None)
    """
    try:
        found = regex.search(pattern, text, flags=regex.VERSION0, timeout=PATIENCE_SECONDS)
    except TimeoutError:
        raise EndlessError(
            f"The pattern {quoted(pattern)} in generate.extract takes over {PATIENCE_SECONDS:g} seconds on a text of "
            f"{len(text):,} characters; write it without a repeat within a repeat, such as (a+)+."
        ) from None
    if found is None:
        return None
    own: str | None = found.group(1 if found.re.groups else 0)
    return own
