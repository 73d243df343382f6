"""`strop task`: what a task file makes of its rows."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from strop.cli.console import (
    DeviceOption,
    DtypeOption,
    FamilyOption,
    JsonOption,
    QuietOption,
    RevisionOption,
    anatomy_for_command,
    load_for_command,
    print_json,
    print_line,
    print_table,
)
from strop.cli.failure import interruptible
from strop.cli.following import print_next
from strop.cli.progress import showing_progress

if TYPE_CHECKING:
    from strop.scoring.token_check import TokenCheck
    from strop.tasks import Task, TaskCheck

task_app = typer.Typer(
    name="task",
    help="Look at a task before a model is asked it.\n\nExample: [bold]strop task check my-facts.yaml[/bold]",
    no_args_is_help=True,
    rich_markup_mode="rich",
)


@task_app.command("check")
@interruptible
def check(
    task_name: Annotated[
        str,
        typer.Argument(metavar="T", help="A task file, a folder with one, or a built-in task.", show_default=False),
    ],
    model_name: Annotated[
        str | None,
        typer.Option("--model", metavar="MODEL", help="Count in this model's tokens too.", show_default=False),
    ] = None,
    revision: RevisionOption = None,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    family_file: FamilyOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Show a task's splits, an example, answers and repeats, and every row that cannot be used; exit 1 if there are some.

    Example: [bold]strop task check my-facts.yaml --model smollm2-135m[/bold]
    """
    from strop.tasks import check_task

    found = check_task(task_name)
    tokens = None
    if model_name is not None and found.task is not None:
        with showing_progress(quiet=quiet) as progress:
            model, tokenizer = load_for_command(
                model_name, progress, revision=revision, device=device, dtype=dtype, task=found.task
            )
            tokens = _tokens(found.task, model, tokenizer, family_file)
    fits = found.fits and not (tokens and tokens.bad)
    if as_json:
        told = {"tokens": dataclasses.asdict(tokens) if tokens else None}
        print_json({"format": 1, "command": "task check", **found.to_json(), **told})
    else:
        _print(found, tokens)
        if fits:
            loading = {"--revision": revision, "--device": device, "--dtype": dtype, "--family": family_file}
            print_next("eval", model_name or "MODEL", options={"--task": task_name, **loading})
    if not fits:
        raise typer.Exit(1)


def _tokens(task: "Task", model: Any, tokenizer: Any, family_file: Path | None) -> "TokenCheck | None":
    """Return the task in the model's tokens; None for a classifier's, whose texts have no border."""
    from strop.scoring.encoding import vocabulary_of
    from strop.scoring.forms import form_of
    from strop.scoring.token_check import check_tokens

    if task.labels is not None:
        return None
    anatomy = anatomy_for_command(model, family_file)
    form = form_of(model, anatomy, tokenizer, task.score)
    return check_tokens(task, tokenizer, longest=anatomy.context(model), vocabulary=vocabulary_of(model), form=form)


def _print(found: "TaskCheck", tokens: "TokenCheck | None") -> None:
    """Print what was found for a person."""
    from strop.report import bad_row_lines, example_lines, task_lines, task_table

    if found.splits:
        print_table(task_table(found))
    lines = [*task_lines(found), *example_lines(found), *_token_lines(tokens), *bad_row_lines(found.bad)]
    lines += [found.problem] if found.problem is not None else []
    for line in lines:
        print_line(line)


def _token_lines(tokens: "TokenCheck | None") -> list[str]:
    from strop.report import length_line, rows_in_lines

    if tokens is None:
        return []
    lines = []
    if tokens.prompt_tokens is not None and tokens.answer_tokens is not None:
        border = f"{' '.join(map(repr, tokens.before))} | {' '.join(map(repr, tokens.after))}"
        lines = [
            f"its tokens around the border: {border}",
            length_line("prompts", tokens.prompt_tokens, f"tokens of the model's {tokens.longest:,}"),
            length_line("answers", tokens.answer_tokens, "tokens"),
        ]
    if tokens.seams:
        others = f" ({len(tokens.seams):,} rows in all)" if len(tokens.seams) > 1 else ""
        lines.append(f"{tokens.seams[0]}{others}")
    return [*lines, *rows_in_lines(tokens.bad)]
