"""`strop eval`: how good a model is at a task."""

import dataclasses
import functools
from collections.abc import Sequence
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
    ShowChangesOption,
    TaskOption,
    TextOption,
    anatomy_for_command,
    drift_text_for_command,
    load_for_command,
    print_json,
    print_line,
    print_spread,
    print_table,
    task_for_command,
)
from strop.cli.following import free_name, print_next
from strop.cli.progress import showing_progress

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from strop.anatomy import Anatomy, Family
    from strop.progress import Progress
    from strop.proving import DriftText, Together
    from strop.runs import Change
    from strop.scoring import Evaluation, ParaphraseRobustness
    from strop.tasks import Example, Task


def evaluate(
    model_name: ModelArgument,
    task_name: TaskOption = None,
    text_file: TextOption = None,
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
        bool,
        typer.Option(
            "--force", help="Apply a recipe although it was made for another base, and overwrite the file of --out."
        ),
    ] = False,
    revision: RevisionOption = None,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    family_file: FamilyOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    shots: ShotsOption = None,
    show_changes: ShowChangesOption = None,
) -> None:
    """Score a model on a split of a task, or of a text; with a recipe, before and after.

    Example: [bold]strop eval smollm2-135m --task world-facts --recipe RUN/recipe[/bold]
    """
    from strop.checkpoints import identify
    from strop.files import refuse_written, write_json
    from strop.proving import Together
    from strop.recipe import Recipe
    from strop.runs import can_be_baked
    from strop.scoring import refuse_changed

    task = task_for_command(task_name, shots, text=text_file)
    examples = task.examples(split, limit=limit)
    if out is not None:
        refuse_written(out, force=force)
    loaded = Together(tuple(Recipe.load(folder) for folder in recipes or []), force)
    loaded.refuse_task(task)
    _refuse_without_recipe(recipes, {"--drift-text": drift_text, "--show-changes": show_changes})
    if show_changes is not None:
        refuse_changed(task, show_changes)
    text = drift_text_for_command(drift_text)
    with showing_progress(quiet=quiet) as progress:
        model, tokenizer = load_for_command(
            model_name, progress, revision=revision, device=device, dtype=dtype, task=task
        )
        base = identify(model)
        measured = _Asked(task, split, limit, paraphrases, text, show_changes, progress).measure(
            model, tokenizer, loaded, anatomy=anatomy_for_command(model, family_file), fingerprint=base.fingerprint
        )
    report = {
        "format": 1,
        "command": "eval",
        "base_model": {"id": base.name, "fingerprint": base.fingerprint},
        "task": {"name": task.name, "score": task.score, "split": split, **_shots_of(task)},
        "recipes": [str(folder) for folder in recipes or []],
        **measured.to_json(),
    }
    if out is not None:
        write_json(out, {**report, "examples": _per_example(examples, measured.scored)})
    if as_json:
        print_json(report)
        return
    _print(report, measured.change)
    loading = {"--revision": revision, "--device": device, "--dtype": dtype, "--family": family_file}
    if measured.change is None or measured.change.comparison.ci95[0] <= 0:
        asked = {"--task": task_name, "--text": text_file, "--shots": shots, "--drift-text": drift_text}
        command = "sharpen" if task.labels is None else "train"
        print_next(command, model_name, options={**asked, "--out": free_name(Path("RUN")), **loading})
    elif len(loaded.recipes) == 1 and can_be_baked(loaded.recipes[0].describe(), head=loaded.recipes[0].head):
        baked = {"--recipe": (recipes or [])[0], "--out": free_name(Path("MODEL")), "--force": force, **loading}
        print_next("bake", model_name, options=baked)


@dataclasses.dataclass(frozen=True)
class _Measured:
    """What base and edited model scored, and what the recipes changed; only the base without recipes."""

    scored: "dict[str, Evaluation]"
    reworded: "dict[str, ParaphraseRobustness]"
    """Where paraphrases were asked too."""
    change: "Change | None"

    def to_json(self) -> dict[str, Any]:
        """Return what the report holds of it."""
        figures: dict[str, Any] = {name: evaluation.figures.to_json() for name, evaluation in self.scored.items()}
        asked = {name: dataclasses.asdict(own) for name, own in self.reworded.items()}
        changed = self.change.to_json() if self.change is not None else {}
        return {**figures, **changed, **({"paraphrases": asked} if asked else {})}


@dataclasses.dataclass(frozen=True)
class _Asked:
    """What is asked of a model, before and after."""

    task: "Task"
    split: str
    limit: int | None
    paraphrases: bool
    text: "DriftText"
    show_changes: int | None
    progress: "Progress"

    def measure(
        self,
        model: "PreTrainedModel",
        tokenizer: "PreTrainedTokenizerBase",
        recipes: "Together",
        *,
        anatomy: "Anatomy",
        fingerprint: str,
    ) -> _Measured:
        """Score a model, and again with recipes on it where there are any; and say what they changed."""
        from strop.proving import change_of
        from strop.scoring import changed_answers

        recipes.check(model, family=anatomy.family)
        self.text.check(model, tokenizer, anatomy=anatomy)
        score = functools.partial(self._score, model, tokenizer, family=anatomy.family)
        found = {"base": score()}
        if recipes.recipes:
            found["edited"] = found["base"]  # of an empty one it stays so: the very same model gains exactly nothing
        if recipes:
            with recipes.applied(model, family=anatomy.family):
                found["edited"] = score()
        scored = {name: evaluation for name, (evaluation, _) in found.items()}
        reworded = {name: own for name, (_, own) in found.items() if own is not None}
        if not recipes.recipes:
            return _Measured(scored, reworded, None)
        price = recipes.price(
            model, tokenizer, self.text, anatomy=anatomy, fingerprint=fingerprint, progress=self.progress
        )
        examples = self.task.examples(self.split, limit=self.limit)
        change = change_of(self.task, examples, scored["base"], scored["edited"], price, tokenizer=tokenizer)
        if self.show_changes is not None:
            both = (scored["base"], scored["edited"])
            on = functools.partial(recipes.applied, model, family=anatomy.family)
            changed = changed_answers(model, tokenizer, examples, both, after=on, most=self.show_changes)
            change = dataclasses.replace(change, changed=changed)
        return _Measured(scored, reworded, change)

    def _score(
        self, model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", *, family: "Family"
    ) -> "tuple[Evaluation, ParaphraseRobustness | None]":
        """Score a model as it stands, in all the task's paraphrases too where that is asked for."""
        from strop.scoring import evaluate as evaluate_task
        from strop.scoring import evaluate_paraphrases

        ask: dict[str, Any] = {
            "split": self.split, "limit": self.limit, "family": family, "progress": self.progress,
        }  # fmt: skip
        found = evaluate_task(model, tokenizer, self.task, **ask)
        return found, evaluate_paraphrases(model, tokenizer, self.task, **ask) if self.paraphrases else None


def _shots_of(task: "Task") -> dict[str, int]:
    return {"shots": task.shots.count} if task.shots is not None else {}


def _refuse_without_recipe(recipes: list[Path] | None, options: dict[str, object]) -> None:
    from strop.errors import UsageError

    given = [name for name, value in options.items() if value is not None]
    if given and not recipes:
        raise UsageError(f"{given[0]} is about what a recipe changes; give one with --recipe.")


def _print(report: dict[str, Any], found: "Change | None") -> None:
    """Print the figures for a person."""
    from strop.report import changed_lines, evaluation_table, gain_sentence, paraphrase_lines, price_lines, rival_lines

    print_table(evaluation_table(report))
    lines = []
    if found is not None:
        in_accuracy = report["base"]["accuracy"] is not None
        print_line(gain_sentence(found.comparison, in_accuracy=in_accuracy, metric=report["base"].get("metric")))
        print_spread(found.categories)
        lines = [*rival_lines(found.rivals), *price_lines(found.price), *changed_lines(found.changed)]
    for line in [*lines, *paraphrase_lines(report)]:
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
