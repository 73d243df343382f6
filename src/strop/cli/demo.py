"""`strop demo`: the main job on a real model, start to finish."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from strop.cli.console import (
    JsonOption,
    QuietOption,
    load_for_command,
    print_json,
    print_line,
    print_run,
    print_table,
)
from strop.cli.following import free_name, print_next
from strop.cli.progress import showing_progress

if TYPE_CHECKING:
    from strop.proving import RunOutcome
    from strop.tasks import Example

MODEL, TASK = "smollm2-135m", "world-facts"
EXAMPLES, STEPS, SELECT = 100, 5, 200
"""Fewer than the plan's own, so that it takes some minutes on two cores."""
SHOWN = 3


def demo(
    out: Annotated[Path, typer.Option("--out", "-o", metavar="RUN", help="Folder for the run.")] = Path("runs/demo"),
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Watch a small language model get better at facts because its singular values move by two percent on average.

    Fetches SmolLM2-135M-Instruct (4-bit, dequantised to float32), sharpens it by some facts of the built-in world-facts, and
    measures on others. A folder that is taken is left alone: the run goes to the next free name.

    Example: [bold]strop demo --out demo-run[/bold]
    """
    from strop.proving import RunOptions
    from strop.recipe import applied
    from strop.scoring import greedy_continuations
    from strop.searching import SharpenPlan, sharpen
    from strop.tasks import load_task

    task = load_task(TASK)
    folder = free_name(out)
    with showing_progress(quiet=quiet) as progress:
        model, tokenizer = load_for_command(MODEL, progress)
        plan = SharpenPlan(examples=EXAMPLES, steps=STEPS, select_limit=SELECT)
        found = sharpen(model, tokenizer, task, plan, RunOptions(out=folder, progress=progress))
        shown = _fixed_examples(found, task.examples("test"))
        before = greedy_continuations(model, tokenizer, shown)
        with applied(model, found.recipe):
            after = greedy_continuations(model, tokenizer, shown)
    if as_json:
        print_json(found.result.to_json())
        return
    print_run(found.result)
    _print_examples(shown, before, after)
    print_line(f"Everything is in {folder}: result.json, recipe/, study.db, log.txt.")
    print_line(
        f"Beside it, the published method: strop search {MODEL} --task {TASK} --out runs/laser --select-limit 400"
    )
    asked = {"--task": TASK, "--out": "runs/spectrum", "--method": "spectrum", "--epochs": 3}
    print_next("train", MODEL, options=asked)


def _fixed_examples(found: "RunOutcome", test: "tuple[Example, ...]") -> "list[Example]":
    """Return the best-known examples the edit fixed, one of a relation, or the first ones where it fixed none."""
    fixed = [test[index] for index in found.fixed_indices()] or list(test)
    fixed.sort(key=lambda example: -(example.columns.get("popularity") or 0))
    best_of_each = {example.columns.get("relation"): example for example in reversed(fixed)}
    ordered = sorted(best_of_each.values(), key=fixed.index)
    return (ordered + fixed)[:SHOWN]


def _print_examples(shown: "list[Example]", before: list[str], after: list[str]) -> None:
    from strop.report import Table

    rows = tuple(
        (example.prompt, example.answer.strip(), was.split("\n")[0].strip(), now.split("\n")[0].strip())
        for example, was, now in zip(shown, before, after, strict=True)
    )
    print_table(Table("The best-known held-out facts the edit fixed", ("prompt", "answer", "before", "after"), rows))
