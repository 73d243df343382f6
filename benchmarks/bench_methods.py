"""LASER, eigenpruning, and eigenpruning after LASER, on the three built-in tasks: what each gains, and what it costs."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import strop
from common import write_result
from strop.proving import RunOutcome
from strop.runs import RunResult

MODEL = "smollm2-135m"
TASKS = ("world-facts", "int-sum", "int-mult")
SELECT_LIMIT = 400
ROUNDS = {"int-mult": 16}
"""Most rounds of a pruning; eight where nothing is said."""


def method_runs(task_name: str, runs: Path) -> dict[str, RunResult]:
    """Return each method's result on a task; a run that is finished in its folder is read and not repeated."""
    task = strop.load_task(task_name)
    plan = strop.PrunePlan(select_limit=SELECT_LIMIT, iterate=ROUNDS.get(task_name, 8))
    laser_folder, prune_folder, both_folder = (runs / f"{name}-{task_name}" for name in ("laser", "prune", "both"))

    def finished(folder: Path, run: Callable[[Any, Any], RunOutcome]) -> RunResult:
        if not (folder / "result.json").is_file():
            run(*strop.load(MODEL))
        return RunResult.read(folder / "result.json")

    return {
        "LASER": finished(
            laser_folder,
            lambda model, tokenizer: strop.search(
                model,
                tokenizer,
                task,
                strop.SearchPlan(select_limit=SELECT_LIMIT),
                options=strop.RunOptions(out=laser_folder, resume=True),
            ),
        ),
        "eigenpruning": finished(
            prune_folder,
            lambda model, tokenizer: strop.prune(
                model, tokenizer, task, plan, options=strop.RunOptions(out=prune_folder, resume=True)
            ),
        ),
        "eigenpruning after LASER": finished(
            both_folder,
            lambda model, tokenizer: strop.prune(
                model,
                tokenizer,
                task,
                plan,
                options=strop.RunOptions(
                    after=strop.Recipe.load(laser_folder / "recipe"), out=both_folder, resume=True
                ),
            ),
        ),
    }


def row_of(method: str, result: RunResult) -> dict[str, Any]:
    """Return one method's figures on one task, held-out ones."""
    base, edited, comparison = result.base["test"], result.edited["test"], result.comparison["test"]
    prunings = [entry for entry in result.interventions if entry["method"] == "singular_value_pruning"]
    reductions = [entry for entry in result.interventions if entry["method"] == "rank_reduction"]
    over_start = result.comparison.get("test_over_start")
    return {
        "method": method,
        "count": base.count,
        "accuracy": [base.accuracy, edited.accuracy],
        "loss": [base.loss, edited.loss],
        "gain": comparison.gain,
        "ci95": comparison.ci95,
        "p_value": comparison.p_value,
        "p_value_over_laser": over_start.p_value if over_start else None,
        "select_accuracy": [result.base["select"].accuracy, result.edited["select"].accuracy],
        "components_pruned": sum(entry["removed_count"] for entry in prunings),
        "rank_reductions": [f"{entry['layer']} {entry['matrix_type']} to {entry['rank']}" for entry in reductions],
        "wall_seconds": result.cost.wall_seconds,
        "evaluations": result.cost.evaluations,
        "peak_rss_bytes": result.cost.peak_rss_bytes,
    }


def main() -> None:
    """Run what is not finished yet, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, default=Path("runs/methods"), help="folder the runs are kept in")
    runs = parser.parse_args().runs
    figures = {task: [row_of(method, result) for method, result in method_runs(task, runs).items()] for task in TASKS}
    write_result("methods", {"model": MODEL, "select_limit": SELECT_LIMIT, "tasks": figures})


if __name__ == "__main__":
    main()
