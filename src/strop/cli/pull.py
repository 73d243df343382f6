"""`strop pull`: fetch a small real model."""

from typing import Annotated

import typer

from strop.cli.console import JsonOption, QuietOption, print_json, print_line
from strop.cli.following import print_next
from strop.cli.progress import showing_progress


def pull(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A name from the zoo: smollm2-135m.", show_default=False)],
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Fetch a model of the zoo into the cache; at once if it is there already.

    Example: [bold]strop pull smollm2-135m[/bold]
    """
    from strop.checkpoints import ZOO
    from strop.checkpoints import pull as pull_model

    with showing_progress(quiet=quiet) as progress:
        folder = pull_model(name, announce=progress.note)
    entry = ZOO[name]
    if as_json:
        print_json({"name": name, "folder": str(folder), "license": entry.license, "description": entry.description})
        return
    print_line(f"{name}: {entry.description} ({entry.license})\nin {folder}")
    print_next("inspect", name)
