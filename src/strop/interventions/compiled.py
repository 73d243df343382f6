"""Code that torch.compile made: it takes hooks and weights as they were, and so is made anew where these change."""

import functools
import sys
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def forget_compiled_code() -> None:
    """Let torch.compile compile anew whatever it has compiled, so that no edit is passed by or outlives its end."""
    dynamo = sys.modules.get("torch._dynamo")
    if dynamo is not None and getattr(dynamo.eval_frame, "cached_backends", True):
        torch.compiler.reset()


def never_compiled(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Return a function that compiled code calls as it is, instead of tracing what it does."""
    apart: Callable[Parameters, Result] = torch.compiler.disable(function)  # type: ignore[no-untyped-call]

    @functools.wraps(function)
    def called(*arguments: Parameters.args, **named: Parameters.kwargs) -> Result:
        if torch.compiler.is_compiling():
            return apart(*arguments, **named)
        return function(*arguments, **named)  # without the price of switching the compiler off

    return called
