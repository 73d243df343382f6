"""`strop improve`: race all methods under one budget, and prove the best of them, or none."""

import dataclasses
import functools
import time
from typing import Annotated, Literal

import typer

from strop.cli.console import given_only
from strop.cli.method import MethodCall, method_command

_BEGAN = time.monotonic()


@functools.partial(
    method_command,
    without=("layers", "stack", "after", "with_factors"),
    says={
        "time_limit": {
            "help": "All of it, loading and measuring included: 90s, 30m, 1h.",
            "show_default": "the preset's",
        },
        "select_limit": {"show_default": "the preset's"},
        "test_limit": {"show_default": "all, or a sample that fits"},
        "guard": {"show_default": "drift:0.05"},
    },
)
def improve(
    call: MethodCall,
    preset: Annotated[
        Literal["quick", "good", "best"] | None,
        typer.Option(
            help="How much is tried: in about five minutes, half an hour, or four hours.", show_default="quick"
        ),
    ] = None,
    families: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="Which kinds of candidates: sharpen, laser, prune, train, prompt, with commas between them.",
            show_default="sharpen,laser,prune,train,prompt",
        ),
    ] = None,
) -> None:
    """Find what improves a model at a task within a budget, out of all methods, and prove it on held-out examples.

    Sharpening, LASER, eigenpruning, learned edits, a LoRA and solved examples in the prompt race on the select split; each
    round has more data and the better half of those before. The best is chosen if it is better than the model as it is beyond
    chance, else nothing is edited. --time-limit is all of it: loading, choosing and the measurement on held-out examples,
    which are read once. --guard drift:0.05 holds unless another is given; --guard none lifts it.

    Examples:
    [bold]strop improve smollm2-135m --task world-facts --out RUN[/bold]
    [bold]strop improve smollm2-135m --task int-mult --out RUN --preset good --time-limit 20m[/bold]
    """
    from strop.errors import UsageError
    from strop.improving import ImprovePlan
    from strop.improving import improve as improve_model

    guards = call.guard or []
    lifted = "none" in guards
    if lifted and len(guards) > 1:
        raise UsageError("--guard none lifts the guard on drift, and goes with no other; leave it or the others out.")
    settings = given_only(
        preset=preset,
        families=tuple(part.strip() for part in families.split(",") if part.strip()) if families is not None else None,
    )
    plan = ImprovePlan(drift=None if lifted else ImprovePlan().drift, **settings)
    call = dataclasses.replace(call, guard=None if lifted else call.guard, began=_BEGAN)
    call.run(improve_model, plan)
