"""Every method beside every rival on five tasks: what each gains, how it is spread, what it costs, and how long it takes.

On SmolLM2-135M: the best constant answer, the base with 0, 1, 5 and 8 train rows before each prompt, LASER, eigenpruning, the
same ranked by gain and price inside a bound on drift, sharpening by one step and by as many as help, and what is learned with
and without keeping to the base: LoReFT, DiReFT, a bias after each block, the spectrum, and a LoRA of as many parameters as
LoReFT. Lines that are in the results already are not measured again, --methods names the others to measure, and a run that was
stopped is gone on with. The rows of arc-easy and boolq come from the hub, or from a folder named by --data.
"""

import argparse
import dataclasses
import functools
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import strop
from common import RESULTS, write_result
from lora import Settings, train_lora
from strop.anatomy import Anatomy
from strop.interventions import Positions
from strop.proving import Guard, RunOutcome, free_rivals
from strop.runs import Price, RunResult
from strop.scoring import Evaluation, Scorer, compare
from strop.statistics import Comparison, Figures
from strop.tasks import Task

MODEL = "smollm2-135m"
TASK_FILES = Path(__file__).parent / "tasks"
SHOTS = (0, 1, 5, 8)
LAYERS = tuple(range(15, 30))


@dataclasses.dataclass(frozen=True)
class Setting:
    """How much of a task is read, and how its methods are run.

    Learning rates are the better of 0.002 and 0.006 on select after a short training, where both were tried; of several of
    the LoRA select chooses one.
    """

    train: int | None
    select: int
    test: int | None
    guide: int
    """Examples of the gradient a search ranks by; a pruning's effects take twice as many."""
    top_matrices: int
    """How many of these a search tries."""
    rounds: int
    """Most of a pruning."""
    epochs: int
    loreft_rate: float
    lora_rates: tuple[float, ...]


KEPT = 10.0
"""λ of what is kept to the base, and what a nat of drift costs a priced pruning."""
WEIGHTS_RATE = 0.01
"""Learning rate of the spectrum and of biases, everywhere."""
FEW_REMOVED, NEAR = 0.00005, 0.1
"""Share of the singular values that a round of a priced pruning removes, five of SmolLM2's, and how far it may drift."""


SETTINGS = {
    "world-facts": Setting(600, 400, None, 100, 12, 2, 3, 2e-3, (6e-3,)),
    "int-sum": Setting(600, 200, 400, 50, 12, 3, 3, 6e-3, (6e-3,)),
    "int-mult": Setting(None, 80, None, 50, 12, 3, 6, 6e-3, (6e-3,)),
    "arc-easy-choice": Setting(80, 40, 100, 12, 4, 1, 2, 2e-3, (2e-3,)),
    "boolq-choice": Setting(200, 80, 200, 25, 6, 2, 2, 2e-3, (2e-3, 6e-3)),
}


def task_of(name: str) -> Task:
    """Return a built-in task, or one described beside this file."""
    path = TASK_FILES / f"{name}.yaml"
    return strop.load_task(str(path) if path.is_file() else name)


def row_of(figures: Figures, comparison: Comparison, price: Price | None, seconds: float) -> dict[str, Any]:
    """Return one line of the table."""
    drift = price.drift if price is not None else None
    return {
        "accuracy": figures.accuracy,
        "count": figures.count,
        "macro": figures.macro,
        "loss": figures.loss,
        "gain": comparison.gain,
        "gain_ci95": list(comparison.ci95),
        "p_value": comparison.p_value,
        "drift": drift.to_json() if drift is not None else None,
        "seconds": seconds,
    }


def prompted(task: Task, setting: Setting) -> dict[str, Any]:
    """Measure the base with examples in its prompt, and the best constant answer."""
    model, tokenizer = strop.load(MODEL)
    anatomy = Anatomy.of(model)
    found: dict[str, Any] = {}
    base: Evaluation | None = None
    for count in SHOTS:
        asked = task.with_shots(count) if count else task
        examples = asked.examples("test", limit=setting.test)
        started = time.monotonic()
        scorer = Scorer(
            model, tokenizer, examples, task.score, generate=task.generate, anatomy=anatomy, share_prefix=True
        )
        evaluation = scorer.evaluate()
        seconds = time.monotonic() - started
        if base is None:
            base = evaluation
            constant = free_rivals(task, examples, base, base).measured["constant"]
            low, high = constant.comparison.ci95
            found["constant"] = {
                "accuracy": constant.accuracy,
                "count": constant.count,
                "macro": constant.macro,
                "answer": constant.answer,
                "gain": -constant.comparison.gain,
                "gain_ci95": [-high, -low],
                "p_value": constant.comparison.p_value,
                "seconds": 0.0,
            }
        again = dataclasses.replace(evaluation, tokens=base.tokens) if count else base  # the base gains exactly nothing
        found[f"shots_{count}"] = {
            **row_of(evaluation.figures, compare(base, again), None, seconds),
            "tokens_per_request": scorer.tokens_per_request,
        }
    return found


def by_strop(name: str, folder: Path, run: Callable[[strop.RunOptions], RunOutcome]) -> dict[str, Any]:
    """Run a method as the command line would, and return its line."""
    run(strop.RunOptions(out=folder, resume=True, rivals=False))  # refuses a folder of another setting
    result = RunResult.read(folder / "result.json")
    return {
        **row_of(result.edited["test"], result.comparison["test"], result.price, result.cost.wall_seconds),
        "recipe_bytes": sum(file.stat().st_size for file in (folder / "recipe").iterdir()),
        "select": [result.base["select"].accuracy, result.edited["select"].accuracy],
        "spread": result.categories.sentence if result.categories is not None else None,
        "edits": list(result.edits)[:8],
        "method": name,
    }


def by_lora(task: Task, setting: Setting, folder: Path, keep_base: float) -> dict[str, Any]:
    """Train a LoRA at each rate and return the line of the one that select prefers."""
    trained = {
        rate: train_lora(
            MODEL,
            task,
            Settings(LAYERS, setting.train, setting.select, setting.test, setting.epochs, 16, rate, keep_base),
            folder,
        )
        for rate in setting.lora_rates
    }
    rate = max(trained, key=lambda each: trained[each].select_merit)
    best = trained[rate]
    return {
        **row_of(best.edited.figures, compare(best.base, best.edited), best.price, best.seconds),
        "learning_rate": rate,
        "parameters": best.parameters,
    }


def methods(task: Task, setting: Setting, folder: Path) -> dict[str, Callable[[], dict[str, Any]]]:
    """Return how each line is measured, by its name."""
    search = strop.SearchPlan(
        select_limit=setting.select,
        test_limit=setting.test,
        gradient_examples=setting.guide,
        top_matrices=setting.top_matrices,
    )
    prune = strop.PrunePlan(
        select_limit=setting.select,
        test_limit=setting.test,
        effect_examples=2 * setting.guide,
        iterate=setting.rounds,
    )
    train = strop.TrainPlan(
        method="loreft",
        layers=LAYERS,
        rank=8,
        positions=Positions.parse("f7+l7"),
        epochs=setting.epochs,
        batch_size=16,
        accumulate=1,
        learning_rate=setting.loreft_rate,
        keep_base=0,
        train_limit=setting.train,
        select_limit=setting.select,
        test_limit=setting.test,
    )
    weights = dataclasses.replace(
        train, method="spectrum", layers=None, positions=strop.TrainPlan().positions, learning_rate=WEIGHTS_RATE
    )
    learned = {
        "loreft": train,
        "direft": dataclasses.replace(train, method="direft"),
        "spectrum": weights,
        "bias": dataclasses.replace(weights, method="bias"),
    }
    learned |= {f"{name}_kept": dataclasses.replace(plan, keep_base=KEPT) for name, plan in learned.items()}
    steps = strop.SharpenPlan(select_limit=setting.select, test_limit=setting.test)
    sharpened = {
        "sharpen_once": dataclasses.replace(steps, steps=1),
        "sharpen": steps,
        "sharpen_sign": dataclasses.replace(steps, precondition="sign"),
    }
    priced = dataclasses.replace(
        prune, price_weight=KEPT, whole_matrices=True, fractions=(FEW_REMOVED,), iterate=6, patience=6
    )
    return {
        "laser": lambda: by_strop(
            "laser", folder / "laser", lambda options: strop.search(*strop.load(MODEL), task, search, options)
        ),
        "eigenpruning": lambda: by_strop(
            "eigenpruning", folder / "pruned", lambda options: strop.prune(*strop.load(MODEL), task, prune, options)
        ),
        "eigenpruning_priced": lambda: by_strop(
            "eigenpruning_priced",
            folder / "pruned_priced",
            lambda options: strop.prune(
                *strop.load(MODEL), task, priced, dataclasses.replace(options, guards=(Guard.parse(f"drift:{NEAR}"),))
            ),
        ),
        **{name: functools.partial(_by, name, folder, strop.sharpen, task, plan) for name, plan in sharpened.items()},
        **{name: functools.partial(_by, name, folder, strop.train, task, plan) for name, plan in learned.items()},
        "lora": lambda: by_lora(task, setting, folder, 0.0),
        "lora_kept": lambda: by_lora(task, setting, folder, KEPT),
    }


def _by(name: str, folder: Path, run: Any, task: Task, plan: Any) -> dict[str, Any]:
    return by_strop(name, folder / name, lambda options: run(*strop.load(MODEL), task, plan, options))


def main(folder: Path, names: list[str], only: list[str] | None, beside: str | None) -> None:
    """Measure what was asked for and is not in the results yet, and add each line to them when it is there."""
    for name in names:
        task, setting = task_of(name), SETTINGS[name]
        if "shots_0" not in measured(name, setting):
            add(name, setting, prompted(task, setting))
        for method, measure in methods(task, setting, folder / name).items():
            if method in measured(name, setting) or (only is not None and method not in only):
                continue
            found = measure()
            add(name, setting, {method: {**found, "beside": beside} if beside else found})


def measured(name: str, setting: Setting) -> dict[str, Any]:
    """Return the lines of a task that were measured under a setting, others running beside this one included."""
    known = tables().get(name)
    return known["rows"] if known is not None and known["setting"] == _plain(setting) else {}


def add(name: str, setting: Setting, lines: dict[str, Any]) -> None:
    """Add lines to the results of a task; those of another setting are not kept."""
    rows = {**measured(name, setting), **lines}
    found = {**tables(), name: {"setting": _plain(setting), "rows": rows}}
    write_result("evidence", {"model": MODEL, "layers": [LAYERS[0], LAYERS[-1]], "tasks": found}, told=lines)


def tables() -> dict[str, Any]:
    """Return all that was measured so far, by task."""
    path = RESULTS / "evidence.json"
    return dict(json.loads(path.read_text(encoding="utf-8"))["tasks"]) if path.is_file() else {}


def _plain(setting: Setting) -> Any:
    return json.loads(json.dumps(dataclasses.asdict(setting)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tasks", nargs="*", default=list(SETTINGS), help=", ".join(SETTINGS))
    parser.add_argument("--runs", type=Path, default=Path("runs/evidence"), help="folder the runs are kept in")
    parser.add_argument("--data", type=Path, help="folder that holds the rows of arc-easy and boolq (STROP_DATA)")
    parser.add_argument("--methods", help="the lines to measure, such as sharpen,spectrum_kept; all by default")
    parser.add_argument("--beside", help="what else the machine does meanwhile, noted beside the seconds")
    asked = parser.parse_args()
    if asked.data is not None:
        os.environ["STROP_DATA"] = str(asked.data.absolute())
    main(asked.runs, asked.tasks, asked.methods.split(",") if asked.methods else None, asked.beside)
