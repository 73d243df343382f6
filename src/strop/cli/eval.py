"""`strop eval`: how good a model is at a task."""

import contextlib
import dataclasses
import functools
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
    ShotsOption,
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

    from strop.anatomy import Anatomy, Family
    from strop.checkpoints import BaseIdentity
    from strop.progress import Progress
    from strop.proving import DriftText
    from strop.recipe import Recipe
    from strop.runs import Price
    from strop.scoring import Evaluation, ParaphraseRobustness
    from strop.statistics import Comparison, Rivals, Spread
    from strop.tasks import Example, Task


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
    shots: ShotsOption = None,
) -> None:
    """Score a model on a split of a task; with a recipe, before and after.

    Example: [bold]strop eval smollm2-135m --task world-facts --recipe RUN/recipe[/bold]
    """
    from strop.checkpoints import identify
    from strop.files import refuse_occupied, write_json
    from strop.recipe import Recipe
    from strop.scoring import evaluate as evaluate_task
    from strop.scoring import evaluate_paraphrases
    from strop.tasks import load_task

    task = load_task(task_name)
    task = task.with_shots(shots) if shots is not None else task
    examples = task.examples(split, limit=limit)
    if out is not None and out.is_dir():
        refuse_occupied(out, remedy="name a file")
    loaded = [Recipe.load(folder) for folder in recipes or []]
    text = _drift_text(drift_text, loaded)
    scored: dict[str, Evaluation] = {}
    asked: dict[str, ParaphraseRobustness] = {}
    with showing_progress(quiet=quiet) as progress:
        model, tokenizer = load_for_command(
            model_name, progress, revision=revision, device=device, dtype=dtype, task=task
        )
        base = identify(model)
        anatomy = anatomy_for_command(model, family_file)
        family = anatomy.family
        edited = functools.partial(_applied, loaded, model, force=force, family=family)
        for name in ("base", "edited") if loaded else ("base",):
            with edited() if name == "edited" else contextlib.nullcontext():
                scored[name] = evaluate_task(
                    model, tokenizer, task, split=split, limit=limit, family=family, progress=progress
                )
                if paraphrases:
                    asked[name] = evaluate_paraphrases(
                        model, tokenizer, task, split=split, limit=limit, family=family, progress=progress
                    )
        found = _Found()
        if loaded:
            price = _price_of(loaded, model, tokenizer, edited, text, anatomy=anatomy, base=base, progress=progress)
            found = _Found.of(task, examples, scored["base"], scored["edited"], price)
    report: dict[str, Any] = {
        "format": 1,
        "command": "eval",
        "base_model": {"id": base.id, "fingerprint": base.fingerprint},
        "task": {"name": task.name, "score": task.score, "split": split, **_shots_of(task)},
        "recipes": [str(folder) for folder in recipes or []],
        **{name: evaluation.figures.to_json() for name, evaluation in scored.items()},
        **found.to_json(),
        **({"paraphrases": {name: dataclasses.asdict(own) for name, own in asked.items()}} if asked else {}),
    }
    if out is not None:
        write_json(out, {**report, "examples": _per_example(examples, scored)})
    if as_json:
        print_json(report)
        return
    _print(report, found)
    if not loaded:
        command = "search" if task.labels is None else "train"
        print_line(f"Next: strop {command} {model_name} --task {task_name} --out RUN")


@dataclasses.dataclass(frozen=True)
class _Found:
    """What recipes changed; nothing without one."""

    comparison: "Comparison | None" = None
    categories: "Spread | None" = None
    price: "Price | None" = None
    rivals: "Rivals | None" = None

    @classmethod
    def of(
        cls, task: "Task", examples: "Sequence[Example]", base: "Evaluation", edited: "Evaluation", price: "Price"
    ) -> "_Found":
        """Compare two evaluations of the same examples."""
        from strop.proving import free_rivals
        from strop.scoring import compare, spread

        rivals = free_rivals(task, examples, base, edited)
        return cls(compare(base, edited), spread(base, edited), price, rivals or None)

    def to_json(self) -> dict[str, Any]:
        """Return what the report holds of it."""
        parts = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: part.to_json() for name, part in parts.items() if part is not None}


def _shots_of(task: "Task") -> dict[str, int]:
    return {"shots": task.shots.count} if task.shots is not None else {}


def _applied(
    loaded: "Sequence[Recipe]", model: "PreTrainedModel", *, force: bool, family: "Family"
) -> contextlib.ExitStack:
    """Put recipes on a model, one after the other, for a `with` block."""
    from strop.recipe import applied

    with contextlib.ExitStack() as stack:
        for recipe in loaded:
            stack.enter_context(applied(model, recipe, force=force, family=family))
        return stack.pop_all()


def _drift_text(path: Path | None, loaded: "Sequence[Recipe]") -> "DriftText":
    from strop.errors import UsageError
    from strop.proving import DriftText

    if path is None:
        return DriftText()
    if not loaded:
        raise UsageError("--drift-text measures what a recipe changes; give one with --recipe.")
    return DriftText.read(path)


def _price_of(
    loaded: "Sequence[Recipe]",
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    edited: "Callable[[], contextlib.ExitStack]",
    text: "DriftText",
    *,
    anatomy: "Anatomy",
    base: "BaseIdentity",
    progress: "Progress",
) -> "Price":
    """Measure what recipes cost on text that has nothing to do with the task."""
    from strop.proving import price_of

    layers = [edit.site.layer for recipe in loaded for edit in recipe.interventions]
    return price_of(
        model,
        tokenizer,
        edited,
        anatomy=anatomy,
        lowest=min(layers, default=0),
        text=text,
        fingerprint=base.fingerprint,
        progress=progress,
    ).price


def _print(report: dict[str, Any], found: _Found) -> None:
    """Print the figures for a person."""
    from strop.report import evaluation_table, gain_sentence, paraphrase_lines, price_lines, rival_lines

    print_table(evaluation_table(report))
    if found.comparison is not None:
        in_accuracy = report["base"]["accuracy"] is not None
        print_line(gain_sentence(found.comparison, in_accuracy=in_accuracy, metric=report["base"].get("metric")))
    print_spread(found.categories)
    for line in [*rival_lines(found.rivals), *price_lines(found.price), *paraphrase_lines(report)]:
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
