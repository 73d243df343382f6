"""`strop work`: help a search that is going on, on this machine or on another."""

import os
import threading
import time
from typing import Annotated

import typer

from strop.cli.console import DeviceOption, JsonOption, QuietOption, device_for_command, print_json, print_line
from strop.cli.progress import showing_progress


def work(
    model_name: Annotated[
        str | None,
        typer.Argument(
            metavar="[MODEL]",
            help="A copy of the search's model on this machine: a zoo name, a folder, or a hub id.",
            show_default="what the search calls it",
        ),
    ] = None,
    study: Annotated[
        str,
        typer.Option(
            "--study",
            metavar="URL",
            envvar="STROP_STUDY",
            help="The address of a search's database, its run folder or study.db; behind a # the name of one search of several.",
            show_default=False,
        ),
    ] = "",
    device: DeviceOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Help a search that is going on: score its candidates, a layer at a time, until its choice is made.

    The model is loaded once. Only whoever began the search decides; a worker may come, go or be killed at any time, and nothing
    is lost or done twice.

    Examples:
    [bold]strop work --study runs/facts[/bold]

    [bold]strop work --study postgresql+psycopg://me@db.example/studies ./smollm2[/bold]
    """
    from strop.errors import UsageError
    from strop.searching import work as help_search

    if not study:
        raise UsageError(
            "strop work needs to know which search to help: --study URL, or STROP_STUDY in the environment."
        )
    _end_with_parent()
    with showing_progress(quiet=quiet) as progress:
        scored = help_search(study, model_name, device=device_for_command(device), progress=progress)
    if as_json:
        print_json({"scored": scored})
    else:
        print_line(f"The search has made its choice; this worker scored {scored:,} of its candidates.")


def _end_with_parent() -> None:
    """End with the search that started this process, where one did; what is held is put back by whoever goes on with it."""
    parent = os.environ.get("STROP_PARENT")
    if parent is None:
        return

    def watch() -> None:
        while os.getppid() == int(parent):
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
