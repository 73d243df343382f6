"""Compositions of rank reductions at one budget: what each gains on held-out examples, and how far from the base it ends.

On SmolLM2-135M and one task: a single edit, `greedy`, `beam` and `ordered`, each allowed as many evaluations, and `greedy` with a
guard on drift, and with what drift costs counted where candidates are ranked. Of two that gain the same, the one nearer to the
base is better: the frontier holds those that none beats at both. Runs that are finished already are read back.
"""

import argparse
import dataclasses
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import strop
from common import add_dtype, breadth_of, write_result
from strop.proving import Budget, Guard, RunOutcome
from strop.searching import SearchPlan

MODEL = "smollm2-135m"


def plans(base: SearchPlan, *, visited: int, width: int) -> dict[str, SearchPlan]:
    """Return the settings of each line.

    Args:
        base: what they share.
        visited: how many matrices `ordered` visits, which screens none: about as many as the budget pays for.
        width: of the beam.
    """
    greedy = dataclasses.replace(base, compose="greedy")
    return {
        "single": dataclasses.replace(base, max_edits=None),
        "greedy": greedy,
        "beam": dataclasses.replace(base, compose="beam", beam=width),
        "ordered": dataclasses.replace(base, compose="ordered", max_edits=None, top_matrices=visited),
        "greedy_guarded": greedy,
        "greedy_priced": dataclasses.replace(greedy, price_weight=1.0),
        "beam_priced": dataclasses.replace(base, compose="beam", beam=width, price_weight=1.0),
    }


def row_of(found: RunOutcome, seconds: float) -> dict[str, Any]:
    """Return what one line of the table holds."""
    result, comparison = found.result, found.result.comparison["test"]
    assert result.price is not None
    assert result.price.drift is not None
    return {
        "edits": found.recipe.describe(),
        "select": result.edited["select"].accuracy,
        "accuracy": result.edited["test"].accuracy,
        "gain": comparison.gain,
        "gain_ci95": list(comparison.ci95),
        **breadth_of(result),
        "drift": result.price.drift.to_json(),
        "evaluations": len(found.trials),
        "tokens": result.cost.tokens,
        "seconds": result.cost.wall_seconds if result.cost.wall_seconds else seconds,
    }


def frontier_of(rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the lines that no other beats in gain and drift at once, from the smallest drift up."""
    kept: list[str] = []
    for name in sorted(rows, key=lambda name: (rows[name]["drift"]["kl"], -rows[name]["gain"])):
        if not kept or rows[name]["gain"] > rows[kept[-1]]["gain"]:
            kept.append(name)
    return kept


def main() -> None:
    """Run every line that is asked for, and write what they found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task", default="world-facts", help="a built-in task, or a task file")
    parser.add_argument("--evaluations", type=int, default=150, help="what each composition may spend")
    parser.add_argument("--select", type=int, default=100, help="select examples")
    parser.add_argument("--test", type=int, default=200, help="held-out examples")
    parser.add_argument("--edits", type=int, default=3, help="most edits of greedy and beam")
    parser.add_argument("--top-matrices", type=int, default=6, help="matrices the gradient proposes")
    parser.add_argument("--visited", type=int, default=24, help="matrices that ordered visits")
    parser.add_argument("--beam", type=int, default=2, help="width of the beam")
    parser.add_argument("--lowest-layer", type=int, default=15, help="the lowest layer that is edited")
    parser.add_argument("--drift", type=float, default=0.2, help="bound of the guarded lines, nats per token")
    parser.add_argument("--lines", nargs="*", help="which lines; all by default")
    add_dtype(parser)
    parser.add_argument("--runs", type=Path, default=Path("runs/compose"), help="where the runs' folders are kept")
    given = parser.parse_args()
    model, tokenizer = strop.load(MODEL, dtype=given.dtype)
    task = strop.load_task(given.task)
    base = SearchPlan(
        layers=tuple(range(given.lowest_layer, model.config.num_hidden_layers)),
        max_edits=None,
        select_limit=given.select,
        test_limit=given.test,
        gradient_examples=given.select // 2,
        top_matrices=given.top_matrices,
    )
    rows: dict[str, dict[str, Any]] = {}
    figures: dict[str, float | None] = {}
    for name, plan in plans(base, visited=given.visited, width=given.beam).items():
        if given.lines and name not in given.lines:
            continue
        if plan.compose in ("greedy", "beam"):
            plan = dataclasses.replace(plan, max_edits=given.edits)
        bounded = name.endswith(("guarded", "priced"))
        options = strop.RunOptions(
            out=given.runs / Path(given.task).stem / name,
            resume=True,
            budget=Budget(evaluations=given.evaluations),
            guards=[Guard.parse(f"drift:{given.drift}")] if bounded else [],
            rivals=False,
        )
        started = time.perf_counter()
        found = strop.search(model, tokenizer, task, plan, options)
        rows[name] = row_of(found, time.perf_counter() - started)
        figures = {split: found.result.base[split].accuracy for split in ("select", "test")}
        print(name, {key: rows[name][key] for key in ("select", "accuracy", "evaluations", "seconds")}, flush=True)
        print("   ", rows[name]["drift"]["kl"], found.recipe, flush=True)
    settings = {key: value for key, value in vars(given).items() if key not in ("runs", "lines")}
    settings["dtype"] = str(model.dtype)
    write_result(
        f"compose_{Path(given.task).stem}",
        {"model": MODEL, "settings": settings, "base": figures, "rows": rows, "frontier": frontier_of(rows)},
    )


if __name__ == "__main__":
    main()
