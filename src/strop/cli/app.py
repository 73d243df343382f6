"""The commands, and what becomes of an error on its way to a person."""

import contextlib
import io
import os
import sys
import warnings
from collections.abc import Iterator
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from strop import __version__
from strop.cli.bake import bake
from strop.cli.compare import compare
from strop.cli.demo import demo
from strop.cli.eval import evaluate
from strop.cli.export import export
from strop.cli.failure import fail, interruptible
from strop.cli.improve import improve
from strop.cli.inspect import inspect
from strop.cli.prune import prune
from strop.cli.pull import pull
from strop.cli.report import report
from strop.cli.search import search
from strop.cli.sharpen import sharpen
from strop.cli.task import task_app
from strop.cli.train import train
from strop.cli.work import work
from strop.errors import StropWarning, UsageError


class _InOneSentence(TyperGroup):
    """Commands of which a value that does not fit its option is refused as everything else is."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was named."""
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            if type(error) is not typer.BadParameter:  # nothing was given: the usage tells more
                raise
            said = error.format_message().replace("Value error, ", "").rstrip(".")
            raise UsageError(f"{said}.") from None


app = typer.Typer(
    name="strop",
    cls=_InOneSentence,
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
    (improve, "improve"),
    (search, "search"),
    (prune, "prune"),
    (sharpen, "sharpen"),
    (train, "train"),
    (work, "work"),
    (compare, "compare"),
    (report, "report"),
    (bake, "bake"),
    (export, "export"),
    (demo, "demo"),
):
    app.command(_name)(interruptible(_command))
app.add_typer(task_app)


def main() -> None:
    """Run the command line; a failure is one sentence on standard error and exit status 1, a wrong call 2."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what an old encoding cannot spell is no reason to lose a result
            stream.reconfigure(errors="backslashreplace" if stream is sys.stderr else "replace")
    try:
        with _notes_in_a_line():
            app()
    except (Exception, KeyboardInterrupt) as error:
        if os.environ.get("STROP_DEBUG"):
            raise
        fail(error)


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
