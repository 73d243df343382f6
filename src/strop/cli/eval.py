"""`strop eval`: how good a model is at a task."""

import contextlib
import dataclasses
from pathlib import Path
from typing import Annotated, Any

import typer

from strop.cli.console import (
    DeviceOption,
    DtypeOption,
    FamilyOption,
    JsonOption,
    ModelArgument,
    QuietOption,
    RevisionOption,
    TaskOption,
    load_for_command,
    parse_anatomy,
    print_json,
    print_line,
    print_table,
    showing_progress,
)


def evaluate(
    model_name: ModelArgument,
    task_name: TaskOption,
    recipes: Annotated[
        list[Path] | None,
        typer.Option("--recipe", metavar="DIR", help="A recipe to apply; may be repeated.", show_default=False),
    ] = None,
    split: Annotated[str, typer.Option(help="train, select or test.")] = "test",
    limit: Annotated[int | None, typer.Option(help="Score a random sample of this size.", show_default="all")] = None,
    paraphrases: Annotated[bool, typer.Option("--paraphrases", help="Ask in all the task's paraphrases too.")] = False,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="F", help="Write per-example scores to this JSON file.", show_default=False),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Apply a recipe although it was made for another base.")
    ] = False,
    revision: RevisionOption = None,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    family_file: FamilyOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Score a model on a split of a task; with a recipe, before and after.

    Example: [bold]strop eval smollm2-135m --task world-facts --recipe RUN/recipe[/bold]
    """
    from strop.checkpoints import identify
    from strop.files import refuse_occupied, write_json
    from strop.recipe import Recipe, applied
    from strop.tasks import compare, evaluate_paraphrases, load_task
    from strop.tasks import evaluate as evaluate_task

    task = load_task(task_name)
    examples = task.examples(split, limit=limit)
    if out is not None and out.is_dir():
        refuse_occupied(out, remedy="name a file")
    loaded = [Recipe.load(folder) for folder in recipes or []]
    with showing_progress(quiet=quiet) as progress:
        model, tokenizer = load_for_command(model_name, progress, revision=revision, device=device, dtype=dtype)
        base = identify(model)
        family = parse_anatomy(model, family_file).family
        named = {
            "base": evaluate_task(model, tokenizer, task, split=split, limit=limit, family=family, progress=progress)
        }
        with contextlib.ExitStack() as stack:
            for recipe in loaded:
                stack.enter_context(applied(model, recipe, force=force, family=family))
            if loaded:
                named["edited"] = evaluate_task(
                    model, tokenizer, task, split=split, limit=limit, family=family, progress=progress
                )
            asked = (
                evaluate_paraphrases(model, tokenizer, task, split=split, limit=limit, family=family, progress=progress)
                if paraphrases
                else None
            )
    report: dict[str, Any] = {
        "format": 1,
        "command": "eval",
        "base_model": {"id": base.id, "fingerprint": base.fingerprint},
        "task": {"name": task.name, "score": task.score, "split": split},
        "recipes": [str(folder) for folder in recipes or []],
        **{name: evaluation.summary() for name, evaluation in named.items()},
    }
    if loaded:
        report["comparison"] = compare(named["base"], named["edited"]).to_json()
    if asked is not None:
        report["paraphrases"] = dataclasses.asdict(asked)
    if out is not None:
        scores = [
            {
                "row": example.row,
                "prompt": example.prompt,
                "answer": example.answer,
                **{
                    name: {
                        "loss": float(evaluation.loss[index]),
                        **({"correct": bool(evaluation.correct[index])} if evaluation.correct is not None else {}),
                    }
                    for name, evaluation in named.items()
                },
            }
            for index, example in enumerate(examples)
        ]
        write_json(out, {**report, "examples": scores})
    if as_json:
        print_json(report)
        return
    _print_report(report, model_name, task_name)


def _print_report(report: dict[str, Any], model_name: str, task_name: str) -> None:
    from strop.report import Table, p_value, percent, signed_points

    task = report["task"]
    rows = []
    for name in ("base", "edited"):
        if name in report:
            figures = report[name]
            extra: tuple[str, ...] = (percent(figures["top5"]), percent(figures["top10"])) if "top5" in figures else ()
            extra += (f"{figures['perplexity']:.3f}",) if "perplexity" in figures else ()
            rows.append((name, str(figures["count"]), percent(figures["accuracy"]), f"{figures['loss']:.3f}", *extra))
    columns: tuple[str, ...] = ("model", "count", "accuracy", "loss")
    columns += ("top 5", "top 10") if "top5" in report["base"] else ()
    columns += ("perplexity",) if "perplexity" in report["base"] else ()
    print_table(Table(f"{report['base_model']['id']} on {task['name']}/{task['split']}", columns, tuple(rows)))
    if "comparison" in report:
        found = report["comparison"]
        low, high = found["ci95"]
        spell, unit = (
            (signed_points, "points") if report["base"]["accuracy"] is not None else (lambda x: f"{x:+.4f}", "nats")
        )
        print_line(
            f"Gain: {spell(found['gain'])} {unit} (95 % interval {spell(low)} to {spell(high)}; {found['fixed']} fixed, "
            f"{found['broken']} broken, p = {p_value(found['p_value'])})"
        )
    if "paraphrases" in report:
        asked = report["paraphrases"]
        print_line(
            f"In other words ({asked['count']} paraphrases): {percent(asked['accuracy'])} right; "
            f"{percent(asked['consistent'])} of the facts right in every wording"
        )
    if "edited" not in report:
        print_line(f"Next: strop search {model_name} --task {task_name} --out RUN")
