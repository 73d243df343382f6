"""`strop demo`: `strop improve` on a real model and a real task, with a budget of minutes."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from strop.cli.console import (
    JsonOption,
    QuietOption,
    load_for_command,
    print_json,
    print_line,
    print_run,
    print_table,
    resumable,
)
from strop.cli.following import free_name, print_next
from strop.cli.progress import showing_progress

if TYPE_CHECKING:
    from strop.proving import RunOutcome
    from strop.tasks import Example, Task

MODEL, TASK = "smollm2-135m", "world-facts"
FAMILIES: tuple[Literal["sharpen", "prompt"], ...] = ("sharpen", "prompt")
"""Of candidates: those that take some minutes on few cores."""
SECONDS = 600.0
"""All that it may take, on two slow cores and with nothing in the cache; it ends as soon as nobody has more to show."""
SHOWN = 3


def demo(
    out: Annotated[Path, typer.Option("--out", "-o", metavar="RUN", help="Folder for the run.")] = Path("runs/demo"),
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Watch strop improve make a small language model better at facts within ten minutes, and prove it.

    Fetches SmolLM2-135M-Instruct (4-bit, dequantised to float32), lets sharpening and solved examples in the prompt race by some
    facts of the built-in world-facts, measures the choice on others, and writes the report. A folder that is taken is left
    alone: the run goes to the next free name.

    Example: [bold]strop demo --out demo-run[/bold]
    """
    from strop.checkpoints import pull
    from strop.improving import ImprovePlan, improve
    from strop.proving import Budget, RunOptions
    from strop.report import write_report
    from strop.tasks import load_task

    task, folder = load_task(TASK), free_name(out)
    plan = ImprovePlan(families=FAMILIES)
    with showing_progress(quiet=quiet) as progress, resumable(folder):
        pull(MODEL, announce=progress.note)  # how long that takes is the network's affair, and no part of the budget
        began = time.monotonic()
        model, tokenizer = load_for_command(MODEL, progress)
        options = RunOptions(
            out=folder,
            budget=Budget(seconds=SECONDS),
            rivals=False,
            progress=progress,
            spent_seconds=time.monotonic() - began,
        )
        found = improve(model, tokenizer, task, plan, options)
        rows = _shown_examples(found, model, tokenizer, task)
    written = write_report(folder, out=folder / "report.html")
    if as_json:
        assert found.leaderboard is not None  # of a race there is one
        print_json({**found.result.to_json(), "leaderboard": found.leaderboard.to_json(), "report": str(written.path)})
        return
    _print(found, rows)
    print_line(f"The report is in {written.path} ({written.bytes / 1000:,.0f} kB): open it in a browser.")
    longer = {"--task": TASK, "--out": free_name(folder.with_name("improved")), "--time-limit": "20m"}
    print_next("improve", MODEL, options=longer)


def _print(found: "RunOutcome", rows: tuple[tuple[str, ...], ...]) -> None:
    from strop.report import Table

    assert found.leaderboard is not None  # of a race there is one
    print_table(found.leaderboard.table())
    print_line(found.leaderboard.decision)
    title = "The best-known held-out facts that are right now" if found.fixed_indices() else "Some held-out facts"
    print_table(Table(title, ("prompt", "answer", "before", "after"), rows))
    print_run(found.result)


def _shown_examples(found: "RunOutcome", model: Any, tokenizer: Any, task: "Task") -> tuple[tuple[str, ...], ...]:
    """Return some held-out prompts with the right answer, and what the model writes before and after."""
    from strop.recipe import applied
    from strop.scoring import greedy_continuations

    count, prompt = found.result.base["test"].count, found.result.prompt
    test = task.examples("test", limit=count)
    places = _best_known(found, test)
    asked = test if prompt is None else task.with_shots(prompt.shots).examples("test", limit=count)
    before = greedy_continuations(model, tokenizer, [test[place] for place in places])
    with applied(model, found.recipe):
        after = greedy_continuations(model, tokenizer, [asked[place] for place in places])
    return tuple(
        (test[place].prompt, test[place].answer.strip(), *(own.strip().split("\n")[0].strip() for own in (was, now)))
        for place, was, now in zip(places, before, after, strict=True)
    )


def _best_known(found: "RunOutcome", test: "tuple[Example, ...]") -> list[int]:
    """Return the places of the best-known facts that were fixed, one of a relation first, or of any where none was."""
    places = found.fixed_indices() or list(range(len(test)))
    places.sort(key=lambda place: -(test[place].columns.get("popularity") or 0))
    best_of_each = {test[place].columns.get("relation"): place for place in reversed(places)}
    ordered = sorted(best_of_each.values(), key=places.index)
    return list(dict.fromkeys([*ordered, *places]))[:SHOWN]
