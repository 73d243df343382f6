"""`strop eval`: how good a model is at a task."""

import contextlib
import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from strop.cli.console import (
    DeviceOption,
    DriftTextOption,
    DtypeOption,
    FamilyOption,
    JsonOption,
    ModelArgument,
    QuietOption,
    RevisionOption,
    TaskOption,
    anatomy_for_command,
    load_for_command,
    print_json,
    print_line,
    print_spread,
    print_table,
    showing_progress,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from strop.anatomy import Anatomy
    from strop.checkpoints import BaseIdentity
    from strop.progress import Progress
    from strop.recipe import Recipe
    from strop.runs import Price
    from strop.scoring import Evaluation, ParaphraseRobustness
    from strop.statistics import Comparison, Spread
    from strop.tasks import Example


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
    drift_text: DriftTextOption = None,
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
    from strop.scoring import compare, evaluate_paraphrases, spread
    from strop.scoring import evaluate as evaluate_task
    from strop.tasks import load_task

    task = load_task(task_name)
    examples = task.examples(split, limit=limit)
    if out is not None and out.is_dir():
        refuse_occupied(out, remedy="name a file")
    loaded = [Recipe.load(folder) for folder in recipes or []]
    scored: dict[str, Evaluation] = {}
    asked: dict[str, ParaphraseRobustness] = {}
    with showing_progress(quiet=quiet) as progress:
        model, tokenizer = load_for_command(
            model_name, progress, revision=revision, device=device, dtype=dtype, task=task
        )
        base = identify(model)
        anatomy = anatomy_for_command(model, family_file)
        family = anatomy.family

        def edited() -> contextlib.ExitStack:
            with contextlib.ExitStack() as stack:
                for recipe in loaded:
                    stack.enter_context(applied(model, recipe, force=force, family=family))
                return stack.pop_all()

        for name in ("base", "edited") if loaded else ("base",):
            with edited() if name == "edited" else contextlib.nullcontext():
                scored[name] = evaluate_task(
                    model, tokenizer, task, split=split, limit=limit, family=family, progress=progress
                )
                if paraphrases:
                    asked[name] = evaluate_paraphrases(
                        model, tokenizer, task, split=split, limit=limit, family=family, progress=progress
                    )
        price = (
            _price_of(loaded, model, tokenizer, edited, drift_text, anatomy=anatomy, base=base, progress=progress)
            if loaded
            else None
        )
    comparison = compare(scored["base"], scored["edited"]) if loaded else None
    by_category = spread(scored["base"], scored["edited"]) if loaded else None
    report: dict[str, Any] = {
        "format": 1,
        "command": "eval",
        "base_model": {"id": base.id, "fingerprint": base.fingerprint},
        "task": {"name": task.name, "score": task.score, "split": split},
        "recipes": [str(folder) for folder in recipes or []],
        **{name: evaluation.figures.to_json() for name, evaluation in scored.items()},
        **({"comparison": comparison.to_json()} if comparison is not None else {}),
        **({"categories": by_category.to_json()} if by_category is not None else {}),
        **({"price": price.to_json()} if price is not None else {}),
        **({"paraphrases": {name: dataclasses.asdict(own) for name, own in asked.items()}} if asked else {}),
    }
    if out is not None:
        write_json(out, {**report, "examples": _per_example(examples, scored)})
    if as_json:
        print_json(report)
        return
    _print(report, comparison, by_category, price)
    if not loaded:
        command = "search" if task.labels is None else "train"
        print_line(f"Next: strop {command} {model_name} --task {task_name} --out RUN")


def _price_of(
    loaded: "Sequence[Recipe]",
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    edited: "Callable[[], contextlib.ExitStack]",
    drift_text: Path | None,
    *,
    anatomy: "Anatomy",
    base: "BaseIdentity",
    progress: "Progress",
) -> "Price":
    """Measure what recipes cost on text that has nothing to do with the task."""
    from strop.proving import DriftText, price_of

    layers = [edit.site.layer for recipe in loaded for edit in recipe.interventions]
    return price_of(
        model,
        tokenizer,
        edited,
        anatomy=anatomy,
        lowest=min(layers, default=0),
        text=DriftText.read(drift_text) if drift_text is not None else DriftText(),
        fingerprint=base.fingerprint,
        progress=progress,
    ).price


def _print(
    report: dict[str, Any], comparison: "Comparison | None", by_category: "Spread | None", price: "Price | None"
) -> None:
    """Print the figures for a person."""
    from strop.report import evaluation_table, gain_sentence, paraphrase_lines, price_lines

    print_table(evaluation_table(report))
    if comparison is not None:
        in_accuracy = report["base"]["accuracy"] is not None
        print_line(gain_sentence(comparison, in_accuracy=in_accuracy, metric=report["base"].get("metric")))
    print_spread(by_category)
    for line in [*price_lines(price), *paraphrase_lines(report)]:
        print_line(line)


def _per_example(examples: "Sequence[Example]", scored: "dict[str, Evaluation]") -> list[dict[str, Any]]:
    return [
        {
            "row": example.row,
            "prompt": example.prompt,
            "answer": example.answer,
            **{name: evaluation.of_example(index) for name, evaluation in scored.items()},
        }
        for index, example in enumerate(examples)
    ]
