"""What `strop improve` chooses within a budget, beside each family alone for as long; and what it makes of tasks nothing helps.

python bench_improve.py race world-facts int-mult --seconds 300 --alone sharpen,lora --runs DIR [--data SHARED]
python bench_improve.py nothing --seconds 120 --seeds 20 --runs DIR
"""

import argparse
import dataclasses
import json
import os
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import strop
from bench_evidence import MODEL, task_of
from common import RESULTS, breadth_of, write_result
from strop.improving import FAMILIES, ImprovePlan, improve
from strop.proving import Budget, RunOptions, RunOutcome
from strop.tasks import Task

ALONE = tuple(family for family in FAMILIES if family != "prompt")


def row_of(found: RunOutcome, seconds: float) -> dict[str, Any]:
    """Return one line: the choice, its figures, and how the budget was kept."""
    assert found.leaderboard is not None
    chosen, result = found.leaderboard.chosen, found.result
    drift = result.price.drift if result.price is not None else None
    return {
        "chosen": chosen.name,
        "setting": chosen.setting,
        "select_gain": chosen.comparison.gain if chosen.comparison is not None else 0.0,
        "base": result.base["test"].accuracy,
        "accuracy": result.edited["test"].accuracy,
        "count": result.edited["test"].count,
        "gain": result.comparison["test"].gain,
        "gain_ci95": list(result.comparison["test"].ci95),
        **breadth_of(result),
        "drift": drift.kl if drift is not None else None,
        "tokens_per_request": chosen.tokens_per_request,
        "budget_seconds": found.leaderboard.budget_seconds,
        "seconds": seconds,
        "standings": [
            {
                "name": own.name,
                "state": own.state,
                "count": own.select.count if own.select is not None else None,
                "accuracy": own.select.accuracy if own.select is not None else None,
                "loss": own.select.loss if own.select is not None else None,
                "drift": own.drift.kl if own.drift is not None else None,
                "seconds": own.seconds,
            }
            for own in found.leaderboard.standings
        ],
    }


def raced(task: Task, plan: ImprovePlan, seconds: float, folder: Path) -> dict[str, Any]:
    """Load the model, improve it within so many seconds, loading included, and return the line."""
    started = time.monotonic()
    model, tokenizer = strop.load(MODEL)
    options = RunOptions(
        out=folder, budget=Budget(seconds=seconds), spent_seconds=time.monotonic() - started, resume=True
    )
    found = improve(model, tokenizer, task, plan, options)
    return row_of(found, time.monotonic() - started)


def race(names: list[str], preset: Any, seconds: float, folder: Path, alone: Sequence[str]) -> None:
    """Race all families at each task, then some alone for as long, and write down all of it beside what is there."""
    result = RESULTS / f"improve_{preset}.json"
    for name in names:
        for family in ("all", *alone):
            tasks = json.loads(result.read_text())["tasks"] if result.is_file() else {}
            if family in tasks.get(name, {}):
                continue  # a run that is read back would seem to take no time
            families = tuple(each for each in FAMILIES if family in ("all", each))
            plan = ImprovePlan(preset=preset, families=families)
            try:
                line = raced(task_of(name), plan, seconds, folder / name / family)
                print(name, family, line["chosen"], line["accuracy"], round(line["seconds"]), flush=True)
            except strop.StropError as error:
                line = {"refused": str(error)}
            tasks = json.loads(result.read_text())["tasks"] if result.is_file() else {}  # others may write to it too
            tasks.setdefault(name, {})[family] = line
            write_result(result.stem, {"model": MODEL, "seconds": seconds, "tasks": tasks})


def nothing(seeds: Sequence[int], seconds: float, folder: Path) -> None:
    """Improve at facts whose answers are shuffled, which nothing helps, and count how often nothing is edited."""
    result = RESULTS / "improve_nothing.json"
    for seed in seeds:
        task = shuffled(strop.load_task("world-facts"), seed)
        row = raced(task, ImprovePlan(select_limit=100, test_limit=200), seconds, folder / f"nothing-{seed}")
        print(seed, row["chosen"], row["gain"], row["gain_ci95"], round(row["seconds"]), flush=True)
        runs = json.loads(result.read_text())["runs"] if result.is_file() else {}  # others may write to it too
        runs[str(seed)] = row
        stayed = sum(line["chosen"] == "no edit" for line in runs.values())
        write_result(result.stem, {"model": MODEL, "seconds": seconds, "unedited": stayed, "runs": runs})


def shuffled(task: Task, seed: int) -> Task:
    """Return a task each of whose splits has its answers dealt to its prompts by chance."""
    draw = random.Random(seed)
    splits = {}
    for name, members in task.splits.items():
        answers = [example.answer for example in members]
        draw.shuffle(answers)
        splits[name] = tuple(
            dataclasses.replace(example, answer=answer, paraphrases=())
            for example, answer in zip(members, answers, strict=True)
        )
    return dataclasses.replace(task, splits=splits)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=("race", "nothing"), default="race")
    parser.add_argument("tasks", nargs="*", default=["world-facts", "int-sum", "int-mult"])
    parser.add_argument("--preset", default="quick")
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--alone", default=",".join(ALONE), help="families that race alone too")
    parser.add_argument("--seeds", type=int, default=20, help="how many shuffled tasks")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--runs", type=Path, default=Path("runs/improve"), help="folder the runs are kept in")
    parser.add_argument("--data", type=Path, help="folder that holds the rows of arc-easy and boolq (STROP_DATA)")
    given = parser.parse_args()
    if given.data is not None:
        os.environ["STROP_DATA"] = str(given.data.absolute())
    if given.what == "race":
        race(given.tasks, given.preset, given.seconds, given.runs, given.alone.split(","))
    else:
        nothing(range(given.first_seed, given.first_seed + given.seeds), given.seconds, given.runs)
