"""A text that a user brings: read from a file, not blank, and known again."""

import hashlib
from pathlib import Path

from strop.errors import UsageError


def read_text(path: Path, *, called: str) -> str:
    """Return what a file holds.

    Args:
        path: of the file.
        called: what to call it in an error, such as `The text notes.txt`.

    Raises:
        UsageError: there is no such file, or it is not UTF-8 text.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise UsageError(f"{called} cannot be read: {reason}.") from None


def refuse_blank(text: str, *, called: str) -> None:
    """Raise UsageError if a text says nothing.

    Args:
        text: of a user.
        called: what to call it in an error.
    """
    if not text.strip():
        raise UsageError(f"{called} is empty; give a file with some pages of plain text.")


def digest_of(text: str) -> str:
    """Return 32 hexadecimal digits that tell a text from others.

    >>> digest_of("Some words of prose.") == digest_of("Other words of prose.")
    False
    """
    return hashlib.sha256(text.encode()).hexdigest()[:32]
