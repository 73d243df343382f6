"""`strop report`: what runs found, as a page to read and to pass on."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from strop.cli.analyse import analyse_runs
from strop.cli.console import FamilyOption, JsonOption, QuietOption, print_json, print_line


def report(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="The folders of one run or more.", show_default=False)
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FILE", help="The file to write.", show_default="report.html"),
    ] = None,
    format: Annotated[
        Literal["html", "md"] | None,
        typer.Option("--format", help="A page that stands alone, or Markdown.", show_default="as the file's name ends"),
    ] = None,
    figures: Annotated[
        Path | None,
        typer.Option("--figures", metavar="FOLDER", help="Write each figure as SVG and PNG too.", show_default="none"),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite a file that is there.")] = False,
    analyse: Annotated[
        bool,
        typer.Option(
            "--analyse", help="Load the model and ask other wordings and removed components first; the runs keep them."
        ),
    ] = False,
    task_name: Annotated[
        str | None,
        typer.Option(
            "--task", "-t", metavar="TASK", help="The runs' task, for --analyse.", show_default="what they name"
        ),
    ] = None,
    model_name: Annotated[
        str | None,
        typer.Option(
            "--model", "-m", metavar="MODEL", help="The runs' base, for --analyse.", show_default="what they name"
        ),
    ] = None,
    family_file: FamilyOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Write what runs found as one page: the decision and why, gains with intervals, examples, figures, how to repeat it.

    The page stands alone, runs no script and fetches nothing; it needs no model and no torch. Of several runs a comparison
    comes first. All changed examples go into a file beside it. --analyse asks the model once what a page shows only then: each
    fact in other words, and what the components say that a rank reduction removed.

    Examples:
    [bold]strop report runs/facts --out report.html[/bold]

    [bold]strop report runs/laser runs/sharpened --out both.md[/bold]

    [bold]strop report runs/laser --analyse[/bold]
    [bold]strop report runs/sweep --figures figures[/bold]
    """
    from strop.report import write_report

    left_out = []
    if analyse:
        left_out = analyse_runs(runs, task_name=task_name, model_name=model_name, family_file=family_file, quiet=quiet)
    else:
        _refuse_without_analyse({"--task": task_name, "--model": model_name, "--family": family_file})
    kind: Literal["html", "md"] = format or ("md" if out is not None and out.suffix.lower() == ".md" else "html")
    written = write_report(*runs, out=out, format=kind, figures=figures, force=force)
    if as_json:
        print_json({**written.to_json(), **({"left_out": left_out} if analyse else {})})
        return
    for name, verdict in zip(runs, written.verdicts, strict=True):
        print_line(f"{name}: {verdict}.")
    if not quiet:
        for line in dict.fromkeys([*left_out, *written.missing]):
            print_line(line)
    beside = f", and all changed examples in {written.examples_path}" if written.examples_path is not None else ""
    print_line(f"The report is in {written.path} ({written.bytes / 1000:,.0f} kB){beside}.")
    if figures is not None:
        drawn = [path.name for path in written.figures if path.suffix == ".svg"]
        print_line(f"Its figures are in {figures}, as SVG and PNG: {', '.join(drawn) or 'there are none yet'}.")


def _refuse_without_analyse(options: dict[str, object]) -> None:
    from strop.errors import UsageError

    given = [name for name, value in options.items() if value is not None]
    if given:
        raise UsageError(f"{given[0]} is for --analyse, which asks a model: add it, or leave {given[0]} out.")
