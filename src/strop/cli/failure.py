"""What becomes of whatever a command raises: one sentence on standard error, an exit status, and never a bare traceback."""

import contextlib
import errno
import functools
import os
import platform
import re
import shlex
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

from strop import __version__
from strop.errors import StropError, UsageError, reason_in, shortened

FAILED, WRONG_CALL = 1, 2

_MORE_MEMORY = {
    "train": "a smaller --batch-size, --gradient-checkpointing or fewer --layers",
    "search": "a smaller --select-limit or --gradient-examples",
    "prune": "a smaller --select-limit or --effect-examples",
    "improve": "a smaller --select-limit or fewer --families",
    "sharpen": "a smaller --select-limit or --examples",
}
"""command → what makes it smaller."""


class CtrlCError(Exception):
    """Ctrl-C, with how to go on."""


def interruptible(command: Callable[..., None]) -> Callable[..., None]:
    """Return a command of which Ctrl-C leaves a sentence.

    Args:
        command: the function of a command.
    """

    @functools.wraps(command)
    def run(*arguments: Any, **options: Any) -> None:
        try:
            command(*arguments, **options)
        except KeyboardInterrupt:
            raise CtrlCError("Interrupted; nothing half-written was left: repeat the command to begin again.") from None

    return run


def fail(error: BaseException) -> NoReturn:
    """Say in one sentence on standard error what went wrong, and exit with the status that belongs to it.

    Args:
        error: what a command raised.
    """
    sentence, status = told(error)
    if isinstance(error, (CtrlCError, KeyboardInterrupt)) and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C cuts neither the sentence nor the end short
    try:
        sys.stderr.write(f"Error: {sentence}\n")
        sys.stderr.flush()
    except OSError:  # nobody listens there any more
        _to_nowhere(sys.stderr)
    sys.exit(status)


def told(error: BaseException) -> tuple[str, int]:
    """Return the sentence that says what went wrong, and the exit status.

    Args:
        error: what a command raised.
    """
    if isinstance(error, (CtrlCError, KeyboardInterrupt)):
        return str(error) or "Interrupted before the command began.", FAILED
    causes = _causes(error)
    if any(map(_is_out_of_memory, causes)):
        return _out_of_memory(causes), FAILED
    if isinstance(error, StropError):
        return str(error), WRONG_CALL if isinstance(error, UsageError) else FAILED
    if isinstance(error, BrokenPipeError):
        _to_nowhere(sys.stdout)
        return "Whoever was to read the output has stopped reading: repeat the command without the pipe.", FAILED
    sentence = _of_the_system(error) or _of_the_storage(causes[-1]) or _of_the_input(error)
    return sentence or bug(error), FAILED


def _causes(error: BaseException) -> list[BaseException]:
    """Return an error and what it was raised from, the first cause last: a library's message guesses, the one beneath knows."""
    found = [error]
    while found[-1].__cause__ is not None and found[-1].__cause__ not in found:
        found.append(found[-1].__cause__)
    return found


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    text = str(error).lower()
    told = (
        "out of memory",
        "can't allocate memory",
        "cannot allocate memory",
        "not enough memory",
        "cublas_status_alloc",
    )
    return isinstance(error, (RuntimeError, OSError)) and any(words in text for words in told)


def _out_of_memory(causes: list[BaseException]) -> str:
    asked = next((found for error in causes if (found := re.search(r"llocate ([\d.]+ \w+)", str(error)))), None)
    how_much = f" ({asked[1]} more were asked for)" if asked else ""
    own = _MORE_MEMORY.get(command_name())
    remedy = f"{own}, --dtype bfloat16, or on a larger device" if own else "--dtype bfloat16, or on a larger device"
    return f"Out of memory{how_much}: repeat the command with {remedy}."


def _of_the_system(error: BaseException) -> str | None:
    """Return a sentence for what the operating system refused; None for anything else."""
    if not isinstance(error, OSError):
        return None
    where = f" ({error.filename})" if error.filename else ""
    reason = (error.strerror or reason_in(error)).rstrip(".")
    if error.errno in (errno.ENOSPC, errno.EFBIG):
        return f"The disk is full{where}: {reason}; free some space, then go on with --resume or repeat the command."
    if error.errno == errno.EDQUOT:
        return f"Your disk quota is spent{where}: free some space, then go on with --resume or repeat the command."
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"{reason}{where}: name a place you may read and write; STROP_CACHE says where models are kept."
    if error.errno == errno.EMFILE:
        return f"{reason}: close other programs or raise the limit (ulimit -n), then repeat the command."
    return (
        f"{shortened(reason)}{where}: check that path, then repeat the command." if where else f"{shortened(reason)}."
    )


def _of_the_storage(root: BaseException) -> str | None:
    """Return a sentence for what SQLAlchemy, or a library writing to a full disk, raises; None for anything else."""
    text, first = str(root), shortened(reason_in(root))
    if "disk is full" in text or "No space left" in text or "disk I/O error" in text:
        return f"The disk is full: {first}; free some space, then go on with --resume or repeat the command."
    if type(root).__module__.startswith(("sqlalchemy", "optuna", "sqlite3", "psycopg")):
        return f"The study's storage failed: {first}; once it works again, go on with --resume."
    return None


def _of_the_input(error: BaseException) -> str | None:
    """Return a sentence for what only the input can be to blame for; None for anything else."""
    if isinstance(error, RecursionError):
        return f"What was given is nested too deeply to be read: write it flatter, or report {report(error)}."
    if isinstance(error, UnicodeEncodeError):
        character = ascii(error.object[error.start : error.start + 1])
        if "\ud800" <= error.object[error.start] <= "\udfff":
            return (
                f"The character {character} is half of one and cannot be written: correct the name or the row it is in."
            )
        return (
            f"{character} cannot be written as {error.encoding}: set PYTHONIOENCODING=utf-8, then repeat the command."
        )
    return None


def bug(error: BaseException) -> str:
    """Return the sentence for what nobody foresaw: that it is a bug, and what to send.

    Args:
        error: what a command raised.
    """
    kind = type(error).__name__
    reason = shortened(reason_in(error))
    what = kind if reason == kind else f"{kind}: {reason}"
    sent = f"{report(error)}, which holds the command and the traceback"
    return f"This is a bug in strop {__version__} ({what}): please report it with {sent}."


def report(error: BaseException) -> str:
    """Write the command, the versions and the traceback to a file of their own, and return what to call that.

    Args:
        error: what a command raised.
    """
    from strop.runs import without_password

    lines = [
        f"strop {__version__}, Python {platform.python_version()}, {platform.platform()}",
        *(f"{name} {sys.modules[name].__version__}" for name in ("torch", "transformers") if name in sys.modules),
        f"$ strop {shlex.join(map(without_password, sys.argv[1:]))}",
        "",
        without_password("".join(traceback.format_exception(error))),
    ]
    try:
        descriptor, name = tempfile.mkstemp(prefix="strop-bug-", suffix=".txt")
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write("\n".join(lines))
    except OSError:
        return "what STROP_DEBUG=1 prints"
    return name


def command_name() -> str:
    """Return which command was called; empty where none was."""
    return next((word for word in sys.argv[1:] if not word.startswith("-")), "")


def _to_nowhere(stream: Any) -> None:
    """Let what is still to be flushed go nowhere, so that the interpreter's end is no second failure."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
