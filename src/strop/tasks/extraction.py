"""Reading an answer out of text: cut at a stop, extract by a pattern, compare with the gold."""

import re

from strop.tasks.patterns import search
from strop.tasks.task_file import GenerateSettings

TOLERANCE = 1e-3
"""How far two numbers may lie apart and still match (ReFT, arXiv 2404.03592)."""


def until_stop(text: str, settings: GenerateSettings) -> str:
    """Return the text before the first stop string in it."""
    return text[: min((text.index(stop) for stop in settings.stop if stop in text), default=len(text))]


def extract(text: str, settings: GenerateSettings) -> str | None:
    r"""Return what a text answers: the pattern's first group, or its whole match; None where it is not found.

    Args:
        text: as the model wrote it, cut at a stop string already.
        settings: its `extract`; without one the whole text is the answer.

    Raises:
        EndlessError: the pattern takes seconds to be searched for.

    >>> extract("the correct answer is answer2", GenerateSettings(extract=r"the correct answer is (\w+)"))
    'answer2'
    >>> extract("All of them", GenerateSettings(extract="([A-E])"))
    'A'
    """
    if settings.extract is None:
        return text.strip()
    own = search(settings.extract, text)
    return None if own is None else own.strip()


def last_number(text: str) -> float | None:
    """Return the last number in a text, thousands' commas aside; None where there is none.

    >>> last_number("5 apples cost $1,234.50, not -3")
    -3.0
    """
    found = re.findall(r"-?\d+\.?\d*", text.replace(",", ""), flags=re.ASCII)
    return float(found[-1]) if found else None


def spelled_alike(text: str, settings: GenerateSettings) -> str:
    """Return a text so that what matches by its number is spelled the same.

    >>> spelled_alike("it is 1,234.0", GenerateSettings(match="number"))
    '1234'
    """
    number = last_number(text) if settings.match in ("number", "number_or_option") else None
    return text.strip() if number is None else f"{number:g}"


def is_right(extracted: str | None, gold: str, settings: GenerateSettings) -> bool:
    """Say whether what was extracted matches the gold by the settings' `match`; nothing extracted is wrong.

    By `number_or_option` a gold without a number is the letter of an option, and the first capital from A to E in the
    text is the answer, even that of a word such as "All" (ReFT's rule for mixed arithmetic).

    >>> is_right("so it is 1,234.0", "1234", GenerateSettings(match="number"))
    True
    """
    if extracted is None:
        return False
    if settings.match == "equal":
        return extracted.strip() == gold.strip()
    if settings.match == "contains":
        return gold.strip() in extracted
    ours, theirs = last_number(extracted), last_number(gold)
    if theirs is None and settings.match == "number_or_option":
        option = re.search("[A-E]", extracted)
        return option is not None and option.group() == gold.strip()
    return ours is not None and theirs is not None and abs(ours - theirs) <= TOLERANCE
