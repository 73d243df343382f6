"""`strop prune`: find which singular values to remove."""

import dataclasses
from typing import Annotated, Literal

import typer

from strop.cli.console import MatrixTypesOption, PriceWeightOption, given_only, parse_matrix_types, parse_numbers
from strop.cli.method import MethodCall, method_command


@method_command
def prune(
    call: MethodCall,
    fraction: Annotated[
        str | None,
        typer.Option(
            "--fraction",
            help="Share of the singular values a round removes, such as 0.2; several are all tried.",
            show_default="a ladder, 0.00002 to 0.2",
        ),
    ] = None,
    iterate: Annotated[int | None, typer.Option(help="Most rounds.", show_default="16")] = None,
    scope: Annotated[
        str | None,
        typer.Option(
            help="Share of what: global, per-type or per-matrix; several, such as global,per-type, are all tried.",
            show_default="global",
        ),
    ] = None,
    matrix_types: MatrixTypesOption = None,
    search_types: Annotated[
        bool, typer.Option("--search-types", help="Try to prune each matrix type alone too.")
    ] = False,
    whole_matrices: Annotated[
        bool, typer.Option("--whole-matrices", help="Decompose attention matrices whole, not head by head.")
    ] = False,
    counterfactual: Annotated[
        Literal["zero", "mean", "roll", "pairs"] | None,
        typer.Option(help="What stands in for a component's input when its effect is estimated.", show_default="zero"),
    ] = None,
    reduction: Annotated[
        Literal["consistency", "sum", "max", "mean-abs"] | None,
        typer.Option(help="How effects at many tokens become one score.", show_default="consistency"),
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Points the gradient is averaged over.", show_default="1")] = None,
    bias: Annotated[
        Literal["none", "mean", "position"] | None,
        typer.Option(help="What stays behind of removed components.", show_default="none"),
    ] = None,
    allow_harmful: Annotated[
        bool, typer.Option("--allow-harmful", help="Prune values predicted to raise the loss too.")
    ] = False,
    compat: Annotated[
        Literal["paper"] | None,
        typer.Option(help="Begin from the published settings; options given beside it go first.", show_default=False),
    ] = None,
    effect_examples: Annotated[
        int | None, typer.Option(help="Train examples effects are estimated on.", show_default="200")
    ] = None,
    finalists: Annotated[
        int | None, typer.Option(help="How many candidates of a round are scored on select.", show_default="2")
    ] = None,
    patience: Annotated[
        int | None, typer.Option(help="Rounds without a lower loss on select before it stops.", show_default="3")
    ] = None,
    price_weight: PriceWeightOption = None,
) -> None:
    """Find the singular values whose removal helps a model at a task, and prove the gain on held-out examples (eigenpruning).

    The train split says which values go and how many at a time; the select split how many rounds were worth it; the test
    split is scored once, for the model as it was and for the chosen recipe.

    Examples:
    [bold]strop prune smollm2-135m --task int-mult --out RUN[/bold]

    [bold]strop prune smollm2-135m --task world-facts --out RUN --after LASER-RUN/recipe[/bold]
    """
    from strop.searching import PrunePlan
    from strop.searching import prune as run_prune

    plan = dataclasses.replace(
        PrunePlan.paper() if compat == "paper" else PrunePlan(),
        **given_only(
            price_weight=price_weight,
            fractions=parse_numbers(fraction, "--fraction"),
            scopes=tuple(part.strip() for part in scope.split(",")) if scope is not None else None,
            matrix_types=parse_matrix_types(matrix_types),
            iterate=iterate,
            counterfactual=counterfactual,
            reduction=reduction,
            steps=steps,
            bias=bias,
            effect_examples=effect_examples,
            finalists=finalists,
            patience=patience,
            search_types=search_types or None,
            whole_matrices=whole_matrices or None,
            allow_harmful=allow_harmful or None,
        ),
    )
    call.run(run_prune, plan, new_head=False)
