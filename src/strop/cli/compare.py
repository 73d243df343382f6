"""`strop compare`: two runs or recipes beside their base."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from strop.cli.console import (
    DeviceOption,
    DriftTextOption,
    DtypeOption,
    FamilyOption,
    JsonOption,
    QuietOption,
    RevisionOption,
    ShotsOption,
    ShowChangesOption,
    anatomy_for_command,
    drift_text_for_command,
    load_for_command,
    print_json,
    print_line,
    print_spread,
    print_table,
    task_for_command,
)
from strop.cli.following import free_name, spelt
from strop.cli.progress import showing_progress

if TYPE_CHECKING:
    from strop.progress import Progress
    from strop.proving import RecipePair
    from strop.runs import Side, SideBySide
    from strop.tasks import Task

FolderArgument = Annotated[Path, typer.Argument(help="The folder of a run, or of a recipe.", show_default=False)]


def compare(
    a: FolderArgument,
    b: FolderArgument,
    task_name: Annotated[
        str | None,
        typer.Option(
            "--task",
            "-t",
            metavar="TASK",
            help="Score base, A and B afresh on this task, example by example.",
            show_default="what the runs measured",
        ),
    ] = None,
    model_name: Annotated[
        str | None,
        typer.Option("--model", "-m", metavar="MODEL", help="The base of both.", show_default="what A's recipe names"),
    ] = None,
    split: Annotated[str | None, typer.Option(help="train, select or test.", show_default="test")] = None,
    limit: Annotated[int | None, typer.Option(help="Score a random sample of this size.", show_default="all")] = None,
    drift_text: DriftTextOption = None,
    force: Annotated[
        bool, typer.Option("--force", help="Apply recipes although they were made for another base.")
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
    """Put two runs side by side, by the answers both kept; with a task, score both recipes afresh.

    Examples:
    [bold]strop compare runs/laser runs/learned[/bold]

    [bold]strop compare runs/laser runs/learned --task world-facts --limit 500[/bold]
    """
    from strop.runs import compare_runs

    loading = {"--model": model_name, "--revision": revision, "--device": device, "--dtype": dtype}
    scoring = {
        "--split": split, "--limit": limit, "--shots": shots, "--drift-text": drift_text, "--show-changes": show_changes,
    }  # fmt: skip
    if task_name is None:
        _refuse_without_task({**loading, **scoring, "--force": force or None, "--family": family_file})
        found = compare_runs(a, b)
        following = _following_runs(found)
    else:
        from strop.proving import compare_recipes
        from strop.scoring import refuse_changed

        task = task_for_command(task_name, shots)
        task.examples(split or "test", limit=limit)  # a wrong split or limit is told before a model is loaded
        if show_changes is not None:
            refuse_changed(task, show_changes)
        pair, text = _pair(a, b, task, force=force), drift_text_for_command(drift_text)
        with showing_progress(quiet=quiet) as progress:
            model, tokenizer = _base_of(pair, model_name, task, progress, loading)
            anatomy = anatomy_for_command(model, family_file)
            found = compare_recipes(
                model,
                tokenizer,
                task,
                pair,
                split=split or "test",
                limit=limit,
                text=text,
                show_changes=show_changes,
                family=anatomy.family,
                progress=progress,
            )
        known = {**loading, "--family": family_file, "--force": force}
        again = {"--task": task_name, **scoring, "--limit": None, **known}
        following = _following(found, pair, known)
        if found.better is None and limit is not None:  # more examples may tell
            following = spelt("compare", a, b, options=again)
    if as_json:
        print_json(found.to_json())
        return
    _print(found)
    print_line(f"Next: {following}")


def _refuse_without_task(options: dict[str, Any]) -> None:
    from strop.errors import UsageError

    given = [name for name, value in options.items() if value is not None]
    if given:
        raise UsageError(f"{given[0]} is about scoring afresh; give a task with --task, or leave it out.")


def _following_runs(found: "SideBySide") -> str:
    """Return how to go on after two runs: score them afresh, or, where their answers were paired, use the better one.

    Of files of a user's own the runs know no path.
    """
    from strop.checkpoints import ZOO
    from strop.recipe import Recipe
    from strop.runs import can_be_baked, finished_run
    from strop.tasks import builtin_tasks

    name = found.base_model.id
    known = name in ZOO or "/" in name or (Path(name) / "config.json").is_file()
    if found.b_over_a is None:
        task = found.task if found.task in builtin_tasks() else "TASK"
        options = {"--task": task, "--shots": found.shots or None, "--model": None if known else "MODEL"}
        return spelt("compare", found.a.folder, found.b.folder, options=options)
    side = found.sides[_preferred(found)]
    result = finished_run(Path(side.folder))
    recipe = Path(side.folder) / "recipe"
    if _gained(side) and can_be_baked(result.interventions, head=result.head):
        out = free_name(recipe.parent / "model")
        baking = {"--recipe": recipe, "--out": out, "--revision": Recipe.load(recipe).base.revision}
        return spelt("bake", name if known else "MODEL", options=baking)
    return spelt("report", found.a.folder, found.b.folder)


def _preferred(found: "SideBySide") -> Literal["A", "B"]:
    """Return which of two to go on with: the better one; where neither is, the one that drifts less."""
    drifts = [side.over_base.price.drift if side.over_base.price else None for side in found.sides.values()]
    less = drifts[0] is not None and drifts[1] is not None and drifts[0].is_surely_less_than(drifts[1])
    return found.better or ("A" if less else "B")


def _gained(side: "Side") -> bool:
    return side.over_base.comparison.ci95[0] > 0


def _pair(a: Path, b: Path, task: "Task", *, force: bool) -> "RecipePair":
    """Load two recipes and refuse what cannot be compared, before a model is loaded."""
    from strop.proving import RecipePair
    from strop.recipe import Recipe
    from strop.runs import recipe_folder

    of_a, of_b = recipe_folder(a), recipe_folder(b)
    pair = RecipePair(Recipe.load(of_a), Recipe.load(of_b), names=(str(of_a), str(of_b)), force=force)
    for recipes in pair.each:
        recipes.refuse_task(task)
    return pair


def _base_of(
    pair: "RecipePair", name: str | None, task: "Task", progress: "Progress", loading: dict[str, str | None]
) -> Any:
    """Load the model that is named, or else the base that A's recipe names."""
    from strop.errors import CheckpointError, reason_in

    device, dtype, revision = loading["--device"], loading["--dtype"], loading["--revision"]
    if name is not None:
        return load_for_command(name, progress, revision=revision, device=device, dtype=dtype, task=task)
    base = pair.a.base
    try:
        return load_for_command(
            base.id, progress, revision=revision or base.revision, device=device, dtype=dtype, task=task
        )
    except CheckpointError as error:
        raise CheckpointError(
            f"The base of {pair.names[0]} cannot be loaded; name it with --model: {reason_in(error)}."
        ) from None


def _following(found: "SideBySide", pair: "RecipePair", known: Mapping[str, object]) -> str:
    """Return how to go on with the better one; where neither is, with the one that drifts less.

    Args:
        found: what the comparison says.
        pair: the recipes.
        known: how the base was loaded, by options.
    """
    from strop.runs import can_be_baked

    model = known["--model"] or pair.a.base.id
    loading = {name: value for name, value in known.items() if name != "--model"}
    if known["--model"] is None:
        loading["--revision"] = known["--revision"] or pair.a.base.revision
    chosen = _preferred(found)
    recipe, folder = (pair.a, pair.names[0]) if chosen == "A" else (pair.b, pair.names[1])
    if _gained(found.sides[chosen]) and can_be_baked(recipe.describe(), head=recipe.head):
        out = free_name(Path(folder).parent / "model")
        return spelt("bake", model, options={"--recipe": folder, "--out": out, **loading})
    return spelt("inspect", model, options={"--recipe": folder, **loading})


def _print(found: "SideBySide") -> None:
    """Print two sides for a person."""
    from strop.report import changed_lines, side_by_side_table, side_lines, verdict_lines

    print_table(side_by_side_table(found))
    for line in verdict_lines(found):
        print_line(line)
    if found.b_over_a is not None:
        print_spread(found.b_over_a.categories, names=("A", "B"))
    changed = found.b_over_a.changed if found.b_over_a is not None else None
    for line in [*side_lines(found), *changed_lines(changed, names=("A", "B"))]:
        print_line(line)
