"""The commands, and what becomes of an error on its way to a person."""

import io
import os
import sys
from typing import Annotated

import typer

from strop import __version__
from strop.cli.bake import bake
from strop.cli.compare import compare
from strop.cli.demo import demo
from strop.cli.eval import evaluate
from strop.cli.failure import fail, interruptible
from strop.cli.inspect import inspect
from strop.cli.prune import prune
from strop.cli.pull import pull
from strop.cli.search import search
from strop.cli.sharpen import sharpen
from strop.cli.train import train

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
    app.command(_name)(interruptible(_command))


def main() -> None:
    """Run the command line; a failure is one sentence on standard error and exit status 1, a wrong call 2, Ctrl-C 130."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what an old encoding cannot spell is no reason to lose a result
            stream.reconfigure(errors="backslashreplace" if stream is sys.stderr else "replace")
    try:
        app()
    except (Exception, KeyboardInterrupt) as error:
        if os.environ.get("STROP_DEBUG"):
            raise
        fail(error)
