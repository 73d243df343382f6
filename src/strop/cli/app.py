"""The commands, and what becomes of an error on its way to a person."""

import contextlib
import errno
import os
import sys
import warnings
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from strop import __version__
from strop.cli.bake import bake
from strop.cli.compare import compare
from strop.cli.demo import demo
from strop.cli.eval import evaluate
from strop.cli.inspect import inspect
from strop.cli.prune import prune
from strop.cli.pull import pull
from strop.cli.search import search
from strop.cli.sharpen import sharpen
from strop.cli.task import task_app
from strop.cli.train import train
from strop.errors import StropError, StropWarning, UsageError, reason_in

app = typer.Typer(
    name="strop",
    help="Low-rank interventions on Hugging Face Transformers: find them, prove them, ship them.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version and exit.", is_eager=True, callback=lambda value: _version(value)
        ),
    ] = False,
) -> None:
    """Low-rank interventions on Hugging Face Transformers: find them, prove them, ship them."""


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


for _command, _name in (
    (pull, "pull"),
    (inspect, "inspect"),
    (evaluate, "eval"),
    (search, "search"),
    (prune, "prune"),
    (sharpen, "sharpen"),
    (train, "train"),
    (compare, "compare"),
    (bake, "bake"),
    (demo, "demo"),
):
    app.command(_name)(_command)
app.add_typer(task_app)


def main() -> None:
    """Run the command line; a failure is one sentence on standard error and exit status 1, a wrong call 2."""
    try:
        with _notes_in_a_line():
            app()
    except UsageError as error:
        _fail(str(error), status=2)
    except StropError as error:
        _fail(str(error))
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)
        _fail(_in_a_sentence(error))
    except Exception as error:
        sentence = _storage_failure(error)
        if sentence is None:
            raise
        _fail(sentence)


@contextlib.contextmanager
def _notes_in_a_line() -> Iterator[None]:
    """Write what Strop warns of as one line on standard error, without the place in the code."""
    with warnings.catch_warnings():
        others = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
            if issubclass(category, StropWarning):
                sys.stderr.write(f"Note: {message}\n")
            else:
                others(message, category, *place, **more)

        warnings.showwarning = show
        yield


def _fail(sentence: str, *, status: int = 1) -> None:
    sys.stderr.write(f"Error: {sentence}\n")
    sys.exit(status)


def _in_a_sentence(error: OSError) -> str:
    where = f" ({error.filename})" if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return f"The disk is full{where}: {error.strerror}; free some space, then go on with --resume or repeat the command."
    return f"{error.strerror or error}{where}."


def _storage_failure(error: Exception) -> str | None:
    """Return a sentence for what SQLAlchemy, or a library writing to a full disk, raises; None for anything else."""
    root: BaseException = error
    while root.__cause__ is not None:  # optuna's own message guesses; the driver's beneath it knows
        root = root.__cause__
    text, first = str(root), reason_in(root)
    if "disk is full" in text or "No space left" in text or "disk I/O error" in text:
        return f"The disk is full: {first}; free some space, then go on with --resume or repeat the command."
    if type(error).__module__.startswith(("sqlalchemy", "optuna")):
        return f"The study's storage failed: {first}; once it works again, go on with --resume."
    return None
