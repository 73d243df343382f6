"""The whole sweep beside the published procedure, intervention by intervention; and what gradient and race find, for how much.

The published procedure (LASER's repository) decomposes a matrix and evaluates the whole model for each intervention anew; it is
timed on a sample of them (see `bench_laser_search.py`). Strop's exhaustive search tries the whole grid: matrix types x layers x
rank fractions, the prefix reused and each matrix decomposed once. Then gradient (at its own ranks), race and a race held to a tenth
of the sweep's evaluations choose among the same matrices, and all choices are measured on the same held-out examples. The sweep's
figure, the loss against layer and rank, is drawn beside the results.

Runs that are finished already are read back, and an interrupted one goes on. On a CPU that multiplies bfloat16 in tiles (AMX) the
sweep takes a third of the time in `--dtype bfloat16`; the published procedure is timed in the same.

Made small by `--layers 26-29 --matrix-types up,down --select-limit 150 --test-limit 150 --published 2`.
"""

import argparse
import dataclasses
import shutil
import statistics
from functools import partial
from pathlib import Path
from typing import Any

from scipy.stats import spearmanr

import strop
from bench_laser_search import published_intervention
from common import RESULTS, add_dtype, breadth_of, seconds_of, write_result
from strop.anatomy import Anatomy, MatrixType, editable_shapes
from strop.linalg import DecompositionCache, loss_change_by_rank
from strop.proving import RunOutcome
from strop.report import write_report
from strop.scoring import Scorer
from strop.searching import LASER_RANK_FRACTIONS, SearchPlan, Strategy, measure_effects

RUNS: dict[str, Strategy] = {
    "exhaustive": "exhaustive", "gradient": "gradient", "race": "race", "race within a tenth": "race",
}  # fmt: skip
"""Strategies, by what their runs are called."""

TENTH = 0.1
"""Of the sweep's evaluations, for the race that is held to a budget."""


def numbers_of(text: str) -> tuple[int, ...]:
    """Read `26-29` or `1,5,9`."""
    first, _, last = text.partition("-")
    return tuple(range(int(first), int(last) + 1)) if last else tuple(int(own) for own in text.split(","))


def time_published(model: Any, tokenizer: Any, task: Any, plan: SearchPlan, count: int) -> dict[str, Any]:
    """Time a sample of the published procedure's interventions, spread over the grid."""
    examples = task.examples("select", limit=plan.select_limit)
    sites = list(
        editable_shapes(model, Anatomy.of(model), layers=plan.layers, matrix_types=plan.matrix_types, stack=None)
    )
    grid = [(site, share) for site in sites for share in LASER_RANK_FRACTIONS]
    seconds = []
    for index in range(count):
        site, share = grid[int((index + 0.5) * len(grid) / count)]
        seconds.append(seconds_of(partial(published_intervention, model, tokenizer, examples, site, share)))
        print(f"published: {site} at {share:.1%}: {seconds[-1]:.1f} s", flush=True)
    return {"timed": count, "seconds_per_intervention": sorted(seconds)[count // 2], "interventions": len(grid)}


def described(found: RunOutcome) -> dict[str, Any]:
    """Return what a strategy chose, what that gains at what price, and what it took to choose it."""
    base, compared = found.trials[0], found.result.comparison["test"]
    drift = found.result.price.drift if found.result.price is not None else None
    return {
        "recipe": found.recipe.describe(),
        "select": found.result.edited["select"].to_json(),
        "test": compared.to_json(),
        "drift": drift.to_json() if drift is not None else None,
        **breadth_of(found.result),
        "cost": {
            "trials": len(found.trials),
            "evaluations": round(sum(trial.evaluations for trial in found.trials), 2),
            "seconds": round(max(trial.elapsed_seconds for trial in found.trials) - base.elapsed_seconds, 1),
            "tokens": found.result.cost.tokens,
        },
    }


def run(model: Any, tokenizer: Any, task: Any, plan: SearchPlan, out: Path, **options: Any) -> RunOutcome:
    """Run a search in a folder, with decompositions of its own."""
    cache = DecompositionCache(out.with_suffix(".svd"))
    found = strop.search(
        model,
        tokenizer,
        task,
        plan,
        strop.RunOptions(out=out, decompositions=cache, rivals=False, resume=True, **options),
    )
    print(f"{out.name}: {found.result.cost.wall_seconds:.0f} s, {found.recipe}", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m", help="a name or a folder")
    parser.add_argument("--task", default="world-facts", help="a built-in name or a task file")
    parser.add_argument("--layers", type=numbers_of, default=None, help="such as 26-29; all by default")
    parser.add_argument("--matrix-types", default=None, help="such as up,down; all by default")
    parser.add_argument("--select-limit", type=int, default=300, help="select examples")
    parser.add_argument("--test-limit", type=int, default=None, help="held-out examples; all by default")
    add_dtype(parser)
    parser.add_argument("--runs", type=Path, default=Path("runs/sweep"), help="where the runs' folders are kept")
    parser.add_argument(
        "--lines",
        nargs="*",
        choices=RUNS,
        default=list(RUNS),
        help="which; exhaustive is always among them",
    )
    parser.add_argument("--published", type=int, default=4, help="how many published interventions to time")
    given = parser.parse_args()
    model, tokenizer = strop.load(given.model, dtype=given.dtype)
    task = strop.load_task(given.task)
    types = given.matrix_types and tuple(MatrixType(own) for own in given.matrix_types.split(","))
    plan = SearchPlan(
        layers=given.layers, matrix_types=types, select_limit=given.select_limit, test_limit=given.test_limit
    )
    published = time_published(model, tokenizer, task, plan, given.published)
    found: dict[str, RunOutcome] = {}
    first_order: dict[str, Any] = {}
    for name, strategy in RUNS.items():
        if name not in given.lines and name != "exhaustive":
            continue
        own = dataclasses.replace(plan, strategy=strategy)
        budget = strop.Budget()
        if name.endswith("tenth"):
            budget = strop.Budget(evaluations=max(4, int(TENTH * len(found["exhaustive"].trials))))
        found[name] = run(model, tokenizer, task, own, given.runs / name.replace(" ", "-"), budget=budget)
        if name == "exhaustive":
            draw(given.runs / name)
            first_order = foresight(model, tokenizer, task, plan, found[name])
        figures = figures_of(given, str(model.dtype), published, found)
        write_result("sweep", {**figures, "first_order": first_order})  # as soon as it is there


def foresight(model: Any, tokenizer: Any, task: Any, plan: SearchPlan, swept: RunOutcome) -> dict[str, Any]:
    """Return how well the gradient, which is of first order, foresees what the sweep measured of each cut.

    A matrix stands for its best cut: the one of the lowest predicted loss, or of the lowest measured one.
    """
    anatomy = Anatomy.of(model)
    shapes = editable_shapes(model, anatomy, layers=plan.layers, matrix_types=plan.matrix_types, stack=None)
    examples = task.examples("select", limit=plan.gradient_examples)
    scorer = Scorer(model, tokenizer, examples, task.score, anatomy=anatomy)
    effects = measure_effects(scorer, list(shapes), decompose=DecompositionCache())
    by_place = {(site.layer, str(site.matrix_type)): site for site in shapes}
    unedited, *trials = swept.trials
    predicted, measured, gains, shares, sites = [], [], [], [], []
    for trial in trials:
        settings = trial.key.candidate
        site = by_place[int(settings["layer"]), str(settings["matrix_type"])]
        predicted.append(float(loss_change_by_rank(effects[site].loss_change)[int(settings["rank"])]))
        measured.append(trial.loss - unedited.loss)
        gains.append((trial.accuracy or 0.0) - (unedited.accuracy or 0.0))
        shares.append(round(float(settings["rank_fraction"]), 3))
        sites.append(site)
    foreseen, found, best_gain = (
        {
            site: pick(own for own, where in zip(values, sites, strict=True) if where == site)
            for site in dict.fromkeys(sites)
        }
        for values, pick in ((predicted, min), (measured, min), (gains, max))
    )
    ahead = sorted(foreseen, key=foreseen.__getitem__)
    return {
        "gradient_examples": len(examples),
        "cuts": len(trials),
        "rank_correlation_of_loss_changes": float(spearmanr(predicted, measured).statistic),
        "by_share_kept": {
            f"{share:.1%}": {
                "rank_correlation": float(spearmanr(*of_share(share, shares, predicted, measured)).statistic),
                "median_measured_over_predicted": median_ratio(*of_share(share, shares, predicted, measured)),
            }
            for share in sorted(set(shares))
        },
        "cuts_that_lower_the_loss": sum(own < 0 for own in measured) / len(measured),
        "cuts_predicted_to": sum(own < 0 for own in predicted) / len(predicted),
        "of_those_predicted_to_these_do": sum(m < 0 for m, p in zip(measured, predicted, strict=True) if p < 0)
        / max(1, sum(own < 0 for own in predicted)),
        "rank_correlation_of_matrices": float(
            spearmanr([foreseen[own] for own in ahead], [found[own] for own in ahead]).statistic
        ),
        "place_among_the_foreseen_of_the_best_matrices": {
            "by loss": [ahead.index(own) + 1 for own in sorted(found, key=found.__getitem__)[:10]],
            "by accuracy": [
                ahead.index(own) + 1 for own in sorted(best_gain, key=lambda own: (-best_gain[own], found[own]))[:10]
            ],
        },
    }


def of_share(share: float, shares: list[float], *columns: list[float]) -> list[list[float]]:
    """Return of each column what belongs to one share of the rank."""
    return [[own for own, at in zip(column, shares, strict=True) if at == share] for column in columns]


def median_ratio(predicted: list[float], measured: list[float]) -> float:
    """Return the median of measured changes over predicted ones."""
    return statistics.median(m / p for m, p in zip(measured, predicted, strict=True) if p)


def draw(run_folder: Path) -> None:
    """Write the sweep's figure beside the results, and in the documents."""
    drawn = run_folder.with_name("figures")
    write_report(run_folder, out=drawn / "page.html", figures=drawn, force=True)
    shutil.copy(drawn / "sweep.svg", RESULTS)
    shutil.copy(drawn / "sweep.png", RESULTS.parents[1] / "docs")


def figures_of(
    given: argparse.Namespace, dtype: str, published: dict[str, Any], found: dict[str, RunOutcome]
) -> dict[str, Any]:
    """Return all that was measured so far; the sweep is among it."""
    strategies = {name: described(own) for name, own in found.items()}
    swept, counts = strategies["exhaustive"], found["exhaustive"].result.task.counts
    each = swept["cost"]["seconds"] / (swept["cost"]["trials"] - 1)
    return {
        "model": given.model,
        "task": given.task,
        "dtype": dtype,
        "layers": given.layers,
        "matrix_types": given.matrix_types,
        "rank_fractions": LASER_RANK_FRACTIONS,
        "select": counts["select"],
        "test": counts["test"],
        "published": published,
        "exhaustive_seconds_per_intervention": each,
        "ratio_published_to_exhaustive_per_intervention": published["seconds_per_intervention"] / each,
        "strategies": strategies,
        "share_of_the_sweeps_evaluations": {
            name: own["cost"]["evaluations"] / swept["cost"]["evaluations"] for name, own in strategies.items()
        },
        "finds_the_sweeps_edit": {name: own["recipe"] == swept["recipe"] for name, own in strategies.items()},
    }


if __name__ == "__main__":
    main()
