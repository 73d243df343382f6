"""`strop sharpen`: move all singular values a little."""

from typing import Annotated, Literal

import typer

from strop.cli.console import MatrixTypesOption, given_only, parse_matrix_types
from strop.cli.method import MethodCall, method_command


@method_command
def sharpen(
    call: MethodCall,
    drift: Annotated[
        float | None,
        typer.Option(
            help="Most KL(base || edited), in nats per token; 0 for no bound. Not of classifiers.",
            show_default="0.03",
        ),
    ] = None,
    precondition: Annotated[
        Literal["fisher-sign", "sign", "fisher", "none"] | None,
        typer.Option(help="What becomes of a gradient before it is a step.", show_default="fisher-sign"),
    ] = None,
    step: Annotated[
        float | None,
        typer.Option(
            help="Mean share by which a step changes a value.",
            show_default="0.006 for fisher-sign, 0.004 for sign, else 0.002",
        ),
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Most steps.", show_default="8")] = None,
    examples: Annotated[
        int | None, typer.Option(help="Train examples the gradient is taken over.", show_default="200")
    ] = None,
    matrix_types: MatrixTypesOption = None,
    damping: Annotated[
        float | None,
        typer.Option(help="Added to each Fisher information, as a share of their mean.", show_default="0.1"),
    ] = None,
    fisher_texts: Annotated[
        int | None,
        typer.Option(help="Texts of the base's own that its Fisher information is from.", show_default="32"),
    ] = None,
) -> None:
    """Move all singular values of a model a little, where a task's gradient says so, and prove the gain on held-out examples.

    The train split says which way, the select split how far and how often, and no step may drift further from the base than
    --drift allows; the test split is scored once, for the model as it was and for the chosen recipe.

    Examples:
    [bold]strop sharpen smollm2-135m --task world-facts --out RUN[/bold]

    [bold]strop sharpen smollm2-135m --task my-task.yaml --out RUN --drift 0.01 --examples 32[/bold]
    """
    from strop.searching import SharpenPlan
    from strop.searching import sharpen as run_sharpen

    settings = given_only(
        precondition=precondition,
        step=step,
        steps=steps,
        examples=examples,
        matrix_types=parse_matrix_types(matrix_types),
        damping=damping,
        fisher_texts=fisher_texts,
    )
    if drift is not None:
        settings["drift"] = drift or None
    call.run(run_sharpen, SharpenPlan(**settings))
