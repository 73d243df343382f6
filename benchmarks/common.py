"""What the benchmarks share: timing, and where results go."""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from strop.files import write_text
from strop.runs import RunResult, describe_environment

RESULTS = Path(__file__).parent / "results"


def median_seconds(action: Callable[[], object], *, runs: int, warm_up: int = 1) -> float:
    """Return the median time of several runs, after some that do not count."""
    for _ in range(warm_up):
        action()
    return statistics.median(seconds_of(action) for _ in range(runs))


def seconds_of(action: Callable[[], object]) -> float:
    """Return how long one run takes."""
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def medians_in_turn(actions: Mapping[str, Callable[[], object]], *, runs: int) -> dict[str, float]:
    """Return the median seconds of actions that are timed in turn, several times over, so that a noisy moment hits all alike."""
    for action in actions.values():
        action()
    seconds: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(runs):
        for name, action in actions.items():
            seconds[name].append(seconds_of(action))
    return {name: statistics.median(taken) for name, taken in seconds.items()}


def write_result(name: str, figures: dict[str, Any], *, told: dict[str, Any] | None = None) -> None:
    """Print figures, or those that are new, and write them to benchmarks/results/<name>.json with what they were measured on."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    environment = describe_environment({"torch_threads": torch.get_num_threads(), "cuda": gpu})
    del environment["command"]
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps({"benchmark": name, **figures, "environment": environment}, indent=2)
    write_text(RESULTS / f"{name}.json", text + "\n")  # whole at every moment: others may read it
    print(json.dumps(told if told is not None else figures, indent=2))


def add_dtype(parser: argparse.ArgumentParser) -> None:
    """Let a benchmark's model be loaded in another type."""
    parser.add_argument("--dtype", type=_dtype_named, help="such as bfloat16; the checkpoint's own by default")


def _dtype_named(name: str) -> torch.dtype:
    found = getattr(torch, name, None)
    if not isinstance(found, torch.dtype):
        raise argparse.ArgumentTypeError(f"PyTorch has no type '{name}'")
    return found


def breadth_of(result: RunResult) -> dict[str, Any]:
    """Return how a held-out gain is spread over categories; nothing where the task names none, or nothing was edited."""
    spread = result.categories
    if spread is None:
        return {}
    return {"macro_gain": spread.macro_gain, "macro_ci95": list(spread.macro_ci95), "spread": spread.sentence}
