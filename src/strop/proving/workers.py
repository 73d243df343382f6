"""Who works on a study: the one that decides, and those that help it, whose names say where they live."""

import os
import platform
import uuid

_HELPER = "helper"


def helper_name() -> str:
    """Return a name that nobody else has, and that says on which machine and in which process a helper is.

    >>> is_helper(helper_name()), is_gone(helper_name())
    (True, False)
    """
    return f"{_HELPER} {platform.node()} {os.getpid()} {uuid.uuid4().hex}"


def is_helper(name: str | None) -> bool:
    """Return whether a worker's name is a helper's: it may go on although the one that decides has died.

    Args:
        name: of a worker; None where it was killed before it said its name.
    """
    return name is not None and name.split(" ")[0] == _HELPER


def is_gone(name: str | None) -> bool:
    """Return whether a worker is a helper on this machine whose process has ended; of others only silence tells.

    Args:
        name: of a worker.
    """
    if name is None or not is_helper(name):
        return False
    _, node, process, _ = name.rsplit(" ", 3) if name.count(" ") == 3 else (_HELPER, "", "0", "")
    if node != platform.node() or not hasattr(os, "fork"):  # Windows cannot be asked so
        return False
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return True
    except OSError:  # it is another user's
        return False
    return False
