"""`strop train`: learn edits of hidden states or of weights."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from strop.cli.console import MatrixTypesOption, given_only, parse_matrix_types
from strop.cli.method import MethodCall, method_command


@method_command
def train(
    call: MethodCall,
    method: Annotated[
        str | None,
        typer.Option(
            help="Of hidden states: loreft, direft, noreft, consreft, lobireft or orthonormal-direft; of weights: spectrum "
            "(all singular values scaled), bias or lora (a matrix of low rank added).",
            show_default="loreft",
        ),
    ] = None,
    keep_base: Annotated[
        float | None,
        typer.Option(
            help="What a nat per token of drift costs beside the task's loss; 0 lets it drift.", show_default="10"
        ),
    ] = None,
    keep_text: Annotated[
        Path | None,
        typer.Option(help="A text to keep to as well as to what the base writes itself.", show_default=False),
    ] = None,
    keep_texts: Annotated[
        int | None, typer.Option(help="Texts of each pass that drift is priced on.", show_default="1")
    ] = None,
    matrix_types: MatrixTypesOption = None,
    top: Annotated[
        int | None, typer.Option(help="spectrum: how many of a matrix's largest values are scaled.", show_default="all")
    ] = None,
    band: Annotated[
        int | None,
        typer.Option(help="spectrum: diagonals learned on either side of the main one.", show_default="0"),
    ] = None,
    sparsity: Annotated[
        float | None,
        typer.Option(
            help="spectrum: learn which values to remove, and leave this share of them as they are.",
            show_default="scale all",
        ),
    ] = None,
    rank: Annotated[
        int | None, typer.Option(help="Of each edit's subspace, or of what lora adds.", show_default="8")
    ] = None,
    alpha: Annotated[
        float | None,
        typer.Option(help="lora: over its rank it scales what is added.", show_default="twice the rank"),
    ] = None,
    positions: Annotated[
        str | None,
        typer.Option(
            help="Which tokens: f7+l7 (first and last of the prompt), f5, l1, prompt or all.", show_default="f7+l7"
        ),
    ] = None,
    untied: Annotated[
        bool, typer.Option("--untied", help="One edit for the first tokens, another for the last.")
    ] = False,
    stream: Annotated[
        Literal["block", "attention", "mlp"] | None,
        typer.Option(help="Which hidden states of a layer.", show_default="block"),
    ] = None,
    activation: Annotated[
        Literal["linear", "relu", "gelu", "silu", "tanh", "sigmoid"] | None,
        typer.Option(help="Of what an edit puts in.", show_default="linear"),
    ] = None,
    subspaces: Annotated[
        str | None,
        typer.Option(help="Named parts of the subspace and their ranks, such as style:4,facts:4.", show_default=False),
    ] = None,
    train_subspaces: Annotated[
        str | None,
        typer.Option("--train-subspaces", help="The parts that learn, such as style.", show_default="all"),
    ] = None,
    init: Annotated[
        Literal["identity", "paper"] | None,
        typer.Option(help="Begin with edits that change nothing, or with the paper's.", show_default="identity"),
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="How often the train split is read.", show_default="6")] = None,
    learning_rate: Annotated[
        float | None,
        typer.Option(
            "--learning-rate",
            "--lr",
            help="AdamW's, at its highest.",
            show_default="0.0009 for hidden states, 0.01 for weights, 0.002 for lora",
        ),
    ] = None,
    batch_size: Annotated[int | None, typer.Option(help="Examples of one pass.", show_default="16")] = None,
    accumulate: Annotated[int | None, typer.Option(help="Passes of one step.", show_default="2")] = None,
    weight_decay: Annotated[float | None, typer.Option(help="AdamW's.", show_default="0")] = None,
    warmup: Annotated[
        float | None, typer.Option(help="Share of the steps on which the rate rises.", show_default="0.1")
    ] = None,
    schedule: Annotated[
        Literal["linear", "cosine", "constant"] | None, typer.Option(help="How the rate falls.", show_default="linear")
    ] = None,
    dropout: Annotated[float | None, typer.Option(help="Share of the edit set to zero.", show_default="0")] = None,
    dropout_on: Annotated[
        Literal["edit", "state"] | None,
        typer.Option(help="What dropout falls on; the published code drops the whole state.", show_default="edit"),
    ] = None,
    precision: Annotated[
        Literal["float32", "bfloat16", "float16"] | None,
        typer.Option(help="What the model computes in while it trains.", show_default="float32"),
    ] = None,
    gradient_checkpointing: Annotated[
        bool, typer.Option("--gradient-checkpointing", help="Less memory, a third more time.")
    ] = False,
    prefix_budget_mb: Annotated[
        int | None,
        typer.Option(help="Memory for hidden states below the lowest edit, kept over epochs.", show_default="1074"),
    ] = None,
    patience: Annotated[
        int | None, typer.Option(help="Epochs without a better one before it stops.", show_default="never")
    ] = None,
    train_limit: Annotated[int | None, typer.Option(help="Most examples to learn from.", show_default="all")] = None,
    report_to: Annotated[
        str | None, typer.Option(help="Report losses to tensorboard or wandb.", show_default=False)
    ] = None,
) -> None:
    """Learn edits of hidden states (LoReFT, DiReFT, ...) or of weights (spectrum, bias, lora), and prove the gain.

    The train split teaches, with the model's own weights frozen, while text that the model writes itself keeps the edits to
    what it says elsewhere; the select split chooses the epoch; the test split is scored once, for the model as it was and for
    the chosen recipe.

    Examples:
    [bold]strop train smollm2-135m --task int-sum --out RUN[/bold]

    [bold]strop train smollm2-135m --task world-facts --out RUN --method spectrum[/bold]

    [bold]strop train smollm2-135m --task world-facts --out RUN --method lora --rank 8 --matrix-types query,value[/bold]

    [bold]strop train smollm2-135m --task world-facts --out RUN --method direft --layers 20-29 --rank 4 --positions l1[/bold]
    """
    from strop.anatomy import Stream
    from strop.interventions import Positions
    from strop.proving import DriftText
    from strop.training import TrainPlan
    from strop.training import train as run_training

    plan = TrainPlan(
        **given_only(
            method=method.replace("-", "_") if method is not None else None,
            positions=Positions.parse(positions) if positions is not None else None,
            tied=False if untied else None,
            keep_base=keep_base,
            keep_text=DriftText.read(keep_text) if keep_text is not None else None,
            keep_texts=keep_texts,
            matrix_types=parse_matrix_types(matrix_types),
            top=top,
            band=band,
            sparsity=sparsity,
            stream=Stream(stream) if stream is not None else None,
            activation=activation,
            init=init,
            schedule=schedule,
            dropout_on=dropout_on,
            precision=precision,
            gradient_checkpointing=gradient_checkpointing or None,
            rank=rank,
            alpha=alpha,
            subspaces=parse_subspaces(subspaces),
            train_subspaces=_names(train_subspaces),
            epochs=epochs,
            learning_rate=learning_rate,
            batch_size=batch_size,
            accumulate=accumulate,
            weight_decay=weight_decay,
            warmup=warmup,
            dropout=dropout,
            prefix_budget_bytes=prefix_budget_mb * 10**6 if prefix_budget_mb is not None else None,
            patience=patience,
            train_limit=train_limit,
            report_to=_names(report_to),
        )
    )
    call.run(run_training, plan)


def parse_subspaces(text: str | None) -> tuple[tuple[str, int], ...] | None:
    """Return names and ranks of an option such as style:4,facts:4."""
    from strop.errors import UsageError

    if text is None:
        return None
    parts = [part.strip().rpartition(":") for part in text.split(",")]
    if not all(name and rank.isdecimal() for name, _, rank in parts):
        raise UsageError(f"--subspaces is a list of names and ranks such as style:4,facts:4, not '{text}'.")
    return tuple((name, int(rank)) for name, _, rank in parts)


def _names(text: str | None) -> tuple[str, ...] | None:
    return None if text is None else tuple(part.strip() for part in text.split(",") if part.strip())
