"""What goes wrong while a file of a run is read, in one sentence."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from strop.errors import RunError

DAMAGED = "is damaged ({}): remove it to go on without it."
"""What to say of a file that only a report needs."""


@contextlib.contextmanager
def reading(path: Path, *, otherwise: str) -> Iterator[None]:
    """Raise RunError where a file cannot be read, or is not what it should be, for the length of a `with` block.

    Args:
        path: of the file.
        otherwise: what to say of a file that is not; `{}` stands for what is wrong with it.
    """
    try:
        yield
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}.") from None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise RunError(f"{path} {otherwise.format(error)}") from None
