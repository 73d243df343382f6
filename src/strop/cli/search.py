"""`strop search`: find which matrices to cut to which rank."""

from typing import Annotated, Literal

import typer

from strop.cli.console import MatrixTypesOption, PriceWeightOption, given_only, parse_matrix_types, parse_numbers
from strop.cli.method import MethodCall, method_command


@method_command
def search(
    call: MethodCall,
    strategy: Annotated[
        Literal["gradient", "exhaustive"] | None,
        typer.Option(help="Ask the gradient which few edits to try, or try all.", show_default="gradient"),
    ] = None,
    compose: Annotated[
        Literal["none", "greedy"] | None,
        typer.Option(help="One edit, or one after the other while they help.", show_default="none"),
    ] = None,
    matrix_types: MatrixTypesOption = None,
    rank_fractions: Annotated[
        str | None,
        typer.Option(
            help="Shares of the rank to keep, such as 0.01,0.1.", show_default="around the prediction, or LASER's grid"
        ),
    ] = None,
    max_edits: Annotated[
        int | None, typer.Option(help="Most edits that are added.", show_default="1; 6 with greedy")
    ] = None,
    gradient_examples: Annotated[
        int | None, typer.Option(help="Examples the gradient is taken over.", show_default="100")
    ] = None,
    top_matrices: Annotated[
        int | None, typer.Option(help="How many of the matrices the gradient ranks highest to try.", show_default="12")
    ] = None,
    finalists: Annotated[
        int | None, typer.Option(help="How many candidates go on from the screening.", show_default="8")
    ] = None,
    price_weight: PriceWeightOption = None,
    workers: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Score candidates in N processes, each with the model in memory.", show_default="1"
        ),
    ] = None,
    executor: Annotated[
        Literal["processes", "ray"] | None,
        typer.Option(help="Start the workers on this machine, or on a Ray cluster.", show_default="processes"),
    ] = None,
) -> None:
    """Find the rank reductions that help a model at a task, and prove the gain on held-out examples (LASER).

    The select split chooses; the test split is scored once, for the model as it was and for the chosen recipe.

    Examples:
    [bold]strop search smollm2-135m --task world-facts --out RUN[/bold]

    [bold]strop search ./my-model --task my-facts.yaml --out RUN --compose greedy --max-edits 6[/bold]

    [bold]strop search smollm2-135m --task world-facts --out RUN --guard notes.txt:2%[/bold]

    [bold]strop search smollm2-135m --task world-facts --out RUN --strategy exhaustive --workers 2[/bold]
    """
    from strop.searching import SearchPlan
    from strop.searching import search as run_search

    plan = SearchPlan(
        **given_only(
            price_weight=price_weight,
            strategy=strategy,
            compose=compose,
            matrix_types=parse_matrix_types(matrix_types),
            rank_fractions=parse_numbers(rank_fractions, "--rank-fractions"),
            max_edits=max_edits,
            gradient_examples=gradient_examples,
            top_matrices=top_matrices,
            finalists=finalists,
        )
    )
    call.run(run_search, plan, new_head=False, **given_only(workers=workers, executor=executor))
