"""`strop search`: find which matrices to cut to which rank."""

from typing import Annotated, Literal

import typer

from strop.cli.console import (
    MatrixTypesOption,
    PriceWeightOption,
    given_only,
    parse_matrix_types,
    parse_numbers,
    parse_whole_numbers,
)
from strop.cli.method import MethodCall, method_command


@method_command
def search(
    call: MethodCall,
    strategy: Annotated[
        Literal["gradient", "exhaustive", "race", "data-free"] | None,
        typer.Option(
            help="Ask the gradient, or the spectra alone, which few edits to try; or try all, at once or in a race.",
            show_default="gradient",
        ),
    ] = None,
    compose: Annotated[
        Literal["none", "greedy", "beam", "ordered"] | None,
        typer.Option(
            help="One edit; one after the other while they help; the best few at once; or from the last layer down.",
            show_default="none",
        ),
    ] = None,
    beam: Annotated[
        int | None, typer.Option(help="How many compositions beam goes on from.", show_default="3 with beam")
    ] = None,
    matrix_types: MatrixTypesOption = None,
    rank_fractions: Annotated[
        str | None,
        typer.Option(
            help="Shares of the rank to keep, such as 0.01,0.1.",
            show_default="around the prediction, what the spectrum says, or LASER's grid",
        ),
    ] = None,
    subspaces: Annotated[
        str | None,
        typer.Option(
            help="Into how many subspaces to part matrices, such as 1,2,4,8; factors stay of one size.",
            show_default="1",
        ),
    ] = None,
    axis: Annotated[
        Literal["output", "input"] | None,
        typer.Option(help="Which side's features are parted into subspaces.", show_default="output"),
    ] = None,
    partition: Annotated[
        Literal["block", "subspace"] | None,
        typer.Option(help="Part neighbours together, or what lies near one subspace.", show_default="block"),
    ] = None,
    max_edits: Annotated[
        int | None,
        typer.Option(help="Most edits that are added.", show_default="1; 6 with greedy and beam; any with ordered"),
    ] = None,
    gradient_examples: Annotated[
        int | None, typer.Option(help="Examples the gradient is taken over.", show_default="100")
    ] = None,
    top_matrices: Annotated[
        int | None,
        typer.Option(
            help="How many of the matrices the gradient, or the spectrum, ranks highest to try.", show_default="12"
        ),
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

    The select split chooses; the test split is scored once, for the model as it was and for the chosen recipe. With
    --strategy data-free no labels are needed: it goes by how well a text is predicted, or what the model itself writes.

    Examples:
    [bold]strop search smollm2-135m --task world-facts --out RUN[/bold]

    [bold]strop search ./my-model --task my-facts.yaml --out RUN --compose greedy --max-edits 6[/bold]

    [bold]strop search smollm2-135m --task world-facts --out RUN --strategy race --layers 20-29[/bold]
    [bold]strop search ./my-model --task my-facts.yaml --out RUN --compose beam --beam 4 --guard drift:0.05[/bold]

    [bold]strop search smollm2-135m --task world-facts --out RUN --guard notes.txt:2%[/bold]

    [bold]strop search smollm2-135m --strategy data-free --text notes.txt --out RUN[/bold]
    [bold]strop search smollm2-135m --task world-facts --out RUN --subspaces 1,2,4,8[/bold]

    [bold]strop search smollm2-135m --task world-facts --out RUN --strategy exhaustive --workers 2[/bold]
    """
    from strop.searching import SearchPlan
    from strop.searching import search as run_search

    plan = SearchPlan(
        **given_only(
            price_weight=price_weight,
            strategy=strategy,
            compose=compose,
            beam=beam,
            matrix_types=parse_matrix_types(matrix_types),
            rank_fractions=parse_numbers(rank_fractions, "--rank-fractions"),
            subspaces=parse_whole_numbers(subspaces, "--subspaces"),
            axis=axis,
            partition=partition,
            max_edits=max_edits,
            gradient_examples=gradient_examples,
            top_matrices=top_matrices,
            finalists=finalists,
        )
    )
    call.run(run_search, plan, new_head=False, **given_only(workers=workers, executor=executor))
