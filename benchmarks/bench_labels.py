"""Gain against the number of labelled examples: sharpening beside as many examples in the prompt; and two sharpenings added.

On SmolLM2-135M and `world-facts`. Of 8 to 600 train rows, the same for both: one step against their gradient, of a size that
nothing chose, by its sign and by what the base's own text resists; and all of them before each prompt. Then two steps of signs
over 100 rows each for `world-facts` and for `int-mult`, and the sum of both recipes, on both tasks. What is measured already is
read back from the folder of --runs.
"""

import argparse
import contextlib
import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

import strop
from common import write_result
from strop.anatomy import Anatomy, editable_shapes
from strop.errors import TaskError
from strop.files import write_json
from strop.interventions import applied_interventions
from strop.linalg import DecompositionCache
from strop.proving import Assignment, DriftText, RunOptions
from strop.scoring import DriftScorer, Evaluation, Scorer, compare
from strop.searching import measure_effects
from strop.searching.decompositions import HeldDecompositions
from strop.searching.fisher import FISHER_TEXTS, OwnTexts, fisher_information
from strop.searching.sharpening.spectrum import Preconditioner, Spectrum, direction_of
from strop.tasks import Task
from strop.tasks.examples import Example

MODEL = "smollm2-135m"
TASK, OTHER = "world-facts", "int-mult"
COUNTS = (8, 32, 100, 200, 600)
ONE_STEP: Mapping[Preconditioner, float] = {"sign": 0.01, "fisher-sign": 0.014}
"""Mean share by which the one step changes a singular value."""
ADDED_EXAMPLES, ADDED_STEPS, ADDED_SIZE = 100, 2, 0.004
DAMPING = 0.1


class Bench:
    """The model, with what every line needs of it measured once.

    Args:
        rows: most test examples.
        folder: where lines are kept.
    """

    def __init__(self, rows: int, folder: Path) -> None:
        self.rows, self.folder = rows, folder
        self.model: PreTrainedModel
        self.tokenizer: PreTrainedTokenizerBase
        self.model, self.tokenizer = strop.load(MODEL)
        self.anatomy = Anatomy.of(self.model)
        self.cache = DecompositionCache()
        self.ranks = {site: min(shape) for site, shape in editable_shapes(self.model, self.anatomy).items()}
        self.sites = list(self.ranks)
        self.held = HeldDecompositions(self.model, self.anatomy, self.sites, decompose=self.cache.decompose)
        self.drift = DriftScorer(
            self.model, DriftText().texts(self.model, self.tokenizer, anatomy=self.anatomy), anatomy=self.anatomy
        )
        self.bases: dict[str, tuple[Scorer, Evaluation]] = {}

    def kept(self, name: str, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Return a line that was measured before, or measure it now."""
        path = self.folder / f"{name}-{self.rows}.json"
        if not path.is_file():
            write_json(path, measure())
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        print(name, found, flush=True)
        return found

    def base(self, task: Task) -> tuple[Scorer, Evaluation]:
        """Return a task's test examples, and how the model as it is does on them."""
        if task.name not in self.bases:
            scorer = Scorer(
                self.model, self.tokenizer, task.examples("test", limit=self.rows), task.score, anatomy=self.anatomy
            )
            self.bases[task.name] = scorer, scorer.evaluate()
        return self.bases[task.name]

    def gained(self, task: Task, edited: Evaluation) -> dict[str, Any]:
        """Return a task's figures, beside those of the model as it is."""
        _, base = self.base(task)
        compared = compare(base, edited)
        return {
            "accuracy": edited.figures.accuracy,
            "count": edited.figures.count,
            "macro": edited.figures.macro,
            "loss": edited.figures.loss,
            "gain": compared.gain,
            "gain_ci95": list(compared.ci95),
        }

    def sharpened(
        self,
        task: Task,
        examples: Sequence[Example],
        precondition: Preconditioner,
        size: float,
        steps: int = 1,
    ) -> strop.Recipe:
        """Return so many steps of one size against the gradients over some examples."""
        guide = Scorer(self.model, self.tokenizer, examples, task.score, anatomy=self.anatomy, fewest=2)
        spectrum = Spectrum.unchanged(self.ranks)
        fisher = self.fisher(task) if precondition == "fisher-sign" else None
        for _ in range(steps):
            with self.applied(spectrum):
                effects = measure_effects(guide, self.sites, decompose=self.cache.decompose, decompositions=self.held)
            gradient = {site: -own.loss_change for site, own in effects.items()}
            direction = direction_of(gradient, precondition, fisher=fisher, damping=DAMPING)
            spectrum = spectrum.after(direction, size, in_units=precondition == "sign")
        interventions, tensors = spectrum.interventions()
        return strop.Recipe.of(self.model, interventions, tensors=tensors)

    def fisher(self, task: Task) -> dict[Any, torch.Tensor]:
        """Return what the base's own text resists; kept in Strop's cache."""
        given = Assignment.of(self.model, self.tokenizer, task, RunOptions())
        own = OwnTexts.of(given, count=FISHER_TEXTS)
        return fisher_information(given, own, self.sites, decompositions=self.held)

    def applied(self, spectrum: Spectrum) -> AbstractContextManager[object]:
        """Put a spectrum on the model for a `with` block."""
        interventions, tensors = spectrum.interventions()
        if not interventions:
            return contextlib.nullcontext()
        return applied_interventions(self.model, interventions, anatomy=self.anatomy, tensors=tensors)

    def priced(self, recipe: strop.Recipe, tasks: Sequence[Task]) -> dict[str, Any]:
        """Return what a recipe gains on each task, and how far it drifts."""
        found: dict[str, Any] = {}
        scorers = {task.name: (task, self.base(task)[0]) for task in tasks}
        with strop.applied(self.model, recipe):
            for name, (task, scorer) in scorers.items():
                found[name] = self.gained(task, scorer.evaluate())
            found["drift"] = self.drift.read().to_json()
        return found

    def shown(self, task: Task, examples: Sequence[Example]) -> dict[str, Any]:
        """Return what the model as it is gains by the examples in its prompt, or why it cannot read them."""
        asked_of = with_train(task, examples).with_shots(len(examples))
        try:
            scorer = Scorer(
                self.model,
                self.tokenizer,
                asked_of.examples("test", limit=self.rows),
                task.score,
                anatomy=self.anatomy,
                share_prefix=True,
            )
        except TaskError as error:
            return {"reason": str(error)}
        evaluation = scorer.evaluate()
        _, base = self.base(task)
        evaluation = dataclasses.replace(evaluation, tokens=base.tokens)  # a border may fall otherwise behind a shot
        return {task.name: self.gained(task, evaluation), "tokens_per_request": scorer.tokens_per_request}


def with_train(task: Task, examples: Sequence[Example]) -> Task:
    """Return a task that has no other train rows than these."""
    return dataclasses.replace(task, splits={**task.splits, "train": tuple(examples)})


def drawn(task: Task, count: int) -> list[Example]:
    """Return so many train rows; those of a smaller count come first among those of a larger."""
    rows = task.examples("train")
    return [rows[index] for index in np.random.default_rng(0).permutation(len(rows))[:count]]


def main(rows: int, folder: Path, counts: Sequence[int]) -> None:
    """Measure what was not measured yet, cheapest first, and write down all that is."""
    folder.mkdir(parents=True, exist_ok=True)
    task, other = strop.load_task(TASK), strop.load_task(OTHER)
    bench = Bench(rows, folder)
    found: dict[str, Any] = {
        "model": MODEL,
        "task": TASK,
        "steps": dict(ONE_STEP),
        "added": {"examples": ADDED_EXAMPLES, "steps": ADDED_STEPS, "size": ADDED_SIZE},
        "base": bench.kept("base", lambda: {own.name: bench.gained(own, bench.base(own)[1]) for own in (task, other)}),
        "labels": {},
        "sum": {},
    }

    def write() -> None:
        write_result("labels", found)

    def of_count(count: int) -> dict[str, Any]:
        return found["labels"].setdefault(str(count), {})

    def stepped(count: int) -> None:
        for precondition, size in ONE_STEP.items():
            of_count(count)[precondition] = bench.kept(
                f"{precondition}-{count}",
                lambda precondition=precondition, size=size: bench.priced(  # type: ignore[misc]
                    bench.sharpened(task, drawn(task, count), precondition, size), [task]
                ),
            )
        write()

    def shown(count: int) -> None:
        of_count(count)["shots"] = bench.kept(f"shots-{count}", lambda: bench.shown(task, drawn(task, count)))
        write()

    few, many = [count for count in counts if count <= 100], [count for count in counts if count > 100]
    for count in few:
        stepped(count)
        shown(count)
    recipes: dict[str, strop.Recipe] = {}
    for own in (task, other):
        saved = folder / f"recipe-{own.name}"
        if not saved.is_dir():
            bench.sharpened(own, drawn(own, ADDED_EXAMPLES), "sign", ADDED_SIZE, ADDED_STEPS).save(saved)
        recipes[own.name] = strop.Recipe.load(saved)
    for name, recipe in (*recipes.items(), ("both", recipes[TASK] + recipes[OTHER])):
        found["sum"][name] = bench.kept(f"sum-{name}", lambda recipe=recipe: bench.priced(recipe, [task, other]))  # type: ignore[misc]
        write()
    for count in many:
        stepped(count)
    for count in many:
        shown(count)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=300, help="most test rows of a task")
    parser.add_argument("--counts", default=",".join(map(str, COUNTS)), help="numbers of labelled examples")
    parser.add_argument("--runs", type=Path, default=Path("runs/labels"), help="folder that lines are kept in")
    asked = parser.parse_args()
    main(asked.rows, asked.runs, [int(count) for count in asked.counts.split(",")])
