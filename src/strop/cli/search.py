"""`strop search`: find which matrices to cut to which rank."""

import dataclasses
from typing import Annotated, Literal

import typer

from strop.cli.console import (
    DeviceOption,
    DtypeOption,
    FamilyOption,
    JsonOption,
    LayersOption,
    MatrixTypesOption,
    ModelArgument,
    OutOption,
    QuietOption,
    ResumeOption,
    RevisionOption,
    SelectLimitOption,
    StorageOption,
    TaskOption,
    TestLimitOption,
    anatomy_for_command,
    load_for_command,
    parse_layers_option,
    parse_matrix_types,
    parse_numbers,
    print_outcome,
    resumable,
    showing_progress,
)

GREEDY_MAX_EDITS = 6


def search(
    model_name: ModelArgument,
    task_name: TaskOption,
    out: OutOption,
    strategy: Annotated[
        Literal["gradient", "exhaustive"], typer.Option(help="Ask the gradient which few edits to try, or try all.")
    ] = "gradient",
    compose: Annotated[
        Literal["none", "greedy"], typer.Option(help="One edit, or one after the other while they help.")
    ] = "none",
    matrix_types: MatrixTypesOption = None,
    layers: LayersOption = None,
    rank_fractions: Annotated[
        str | None,
        typer.Option(
            help="Shares of the rank to keep, such as 0.01,0.1.", show_default="around the prediction, or LASER's grid"
        ),
    ] = None,
    max_edits: Annotated[
        int | None, typer.Option(help="Most edits in the recipe.", show_default=f"1; {GREEDY_MAX_EDITS} with greedy")
    ] = None,
    select_limit: SelectLimitOption = 1000,
    test_limit: TestLimitOption = None,
    gradient_examples: Annotated[int, typer.Option(help="Examples the gradient is taken over.")] = 100,
    top_matrices: Annotated[int, typer.Option(help="How many of the matrices the gradient ranks highest to try.")] = 12,
    finalists: Annotated[int, typer.Option(help="How many candidates go on from the screening.")] = 8,
    seed: Annotated[int, typer.Option(help="Of the gradient's sample and the bootstrap.")] = 0,
    storage: StorageOption = None,
    with_factors: Annotated[
        bool, typer.Option("--with-factors", help="Put the low-rank factors into the recipe.")
    ] = False,
    resume: ResumeOption = False,
    revision: RevisionOption = None,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    family_file: FamilyOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Find the rank reductions that help a model at a task, and prove the gain on held-out examples (LASER).

    The select split chooses; the test split is scored once, for the model as it was and for the chosen recipe.

    Examples:
    [bold]strop search smollm2-135m --task world-facts --out RUN[/bold]

    [bold]strop search ./my-model --task my-facts.yaml --out RUN --compose greedy --max-edits 6[/bold]
    """
    from strop.searching import SearchPlan
    from strop.searching import search as run_search
    from strop.tasks import load_task, refuse_labels

    task = load_task(task_name)
    refuse_labels(task, "search")
    plan = SearchPlan(
        strategy=strategy,
        compose=compose,
        matrix_types=parse_matrix_types(matrix_types),
        rank_fractions=parse_numbers(rank_fractions, "--rank-fractions"),
        max_edits=max_edits if max_edits is not None else GREEDY_MAX_EDITS if compose == "greedy" else 1,
        select_limit=select_limit,
        test_limit=test_limit,
        gradient_examples=gradient_examples,
        top_matrices=top_matrices,
        finalists=finalists,
        seed=seed,
    )
    with showing_progress(quiet=quiet) as progress, resumable(out):
        model, tokenizer = load_for_command(model_name, progress, revision=revision, device=device, dtype=dtype)
        anatomy = anatomy_for_command(model, family_file)
        plan = dataclasses.replace(plan, layers=parse_layers_option(layers, anatomy.layer_count))
        found = run_search(
            model,
            tokenizer,
            task,
            plan,
            out=out,
            storage=storage,
            resume=resume,
            family=anatomy.family,
            with_factors=with_factors,
            progress=progress,
        )
    print_outcome(found.result, as_json=as_json, model_name=model_name, task_name=task_name, out=out)
