"""Gain against the number of labelled examples: sharpening beside as many examples in the prompt; and two sharpenings added.

On SmolLM2-135M and `world-facts`. Of 8 to 600 train rows, the same for both: one step against the sign of their gradient, of
a size that nothing chose; and all of them before each prompt. Then two steps of signs
over 100 rows each for `world-facts` and for `int-mult`, and the sum of both recipes, on both tasks. What is measured already is
read back from the folder of --runs.
"""

import argparse
import contextlib
import dataclasses
import functools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

import strop
from common import write_result
from strop.anatomy import Anatomy, WeightSite, editable_shapes
from strop.errors import TaskError
from strop.files import write_json
from strop.interventions import Decompose, SpectrumScaling, applied_interventions
from strop.linalg import DecompositionCache
from strop.proving import DriftText
from strop.scoring import DriftScorer, Evaluation, Scorer, compare
from strop.searching import measure_effects
from strop.searching.decompositions import HeldDecompositions
from strop.searching.sharpening.spectrum import Spectrum, direction_of
from strop.tasks import Task
from strop.tasks.examples import Example

MODEL = "smollm2-135m"
TASK, OTHER = "world-facts", "int-mult"
COUNTS = (8, 32, 100, 200, 600)
ONE_STEP = 0.01
"""Share by which the one step changes every singular value."""
ADDED_EXAMPLES, ADDED_STEPS, ADDED_SIZE = 100, 2, 0.004
DRIFT_TEXTS = 16


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
        self.ranks = {
            site: min(shape)
            for site, shape in editable_shapes(self.model, self.anatomy, layers=None, matrix_types=None).items()
        }
        self.sites = list(self.ranks)
        self.held = HeldDecompositions(self.model, self.anatomy, self.sites, decompose=self.cache.decompose)
        self.weights = {site: self.anatomy.read_weight(self.model, site) for site in self.sites}
        texts = DriftText().texts(self.model, self.tokenizer, anatomy=self.anatomy)
        few = [dataclasses.replace(own, ids=own.ids[:DRIFT_TEXTS]) for own in texts[:1]]
        self.drift = DriftScorer(self.model, few, anatomy=self.anatomy)
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

    def sharpened(self, task: Task, examples: Sequence[Example], size: float, steps: int = 1) -> Spectrum:
        """Return so many steps of one size against the signs of the gradients over some examples."""
        guide = Scorer(self.model, self.tokenizer, examples, task.score, anatomy=self.anatomy, fewest=2)
        spectrum = Spectrum.unchanged(self.ranks)
        for _ in range(steps):
            with self.applied(*spectrum.interventions()):
                effects = measure_effects(guide, self.sites, decompose=self.cache.decompose, decompositions=self.held)
            gradient = {site: -own.loss_change for site, own in effects.items()}
            spectrum = spectrum.after(direction_of(gradient, "sign", damping=0.1), size, in_units=True)
        return spectrum

    @contextlib.contextmanager
    def applied(
        self, edits: Sequence[SpectrumScaling], tensors: Sequence[Mapping[str, torch.Tensor]]
    ) -> Iterator[None]:
        """Put scalings on the model for a `with` block, by the decompositions that are at hand."""
        factors = (edit.precomputed(self.weights[edit.site], decompose=self.decomposed(edit.site)) for edit in edits)
        carried = [{**own, **more} for own, more in zip(tensors, factors, strict=True)]
        with applied_interventions(self.model, edits, anatomy=self.anatomy, tensors=carried):
            yield

    def decomposed(self, site: WeightSite) -> Decompose:
        """Return what gives a matrix of the model its decomposition."""
        return lambda _: self.held(site)

    def priced(
        self, edits: Sequence[SpectrumScaling], tensors: Sequence[Mapping[str, torch.Tensor]], tasks: Sequence[Task]
    ) -> dict[str, Any]:
        """Return what scalings gain on each task, and how far they drift."""
        scorers = {task.name: (task, self.base(task)[0]) for task in tasks}
        with self.applied(edits, tensors):
            found = {name: self.gained(task, scorer.evaluate()) for name, (task, scorer) in scorers.items()}
            found["drift"] = self.drift.read().to_json()
        return found

    def shown(self, task: Task, examples: Sequence[Example]) -> dict[str, Any]:
        """Return what the model as it is gains by the examples in its prompt, or why it cannot read them."""
        asked_of = task.with_shots(len(examples))  # in the order of `drawn`
        tests = asked_of.examples("test", limit=self.rows)
        assert {shot.prompt for shot in tests[0].shots} == {example.prompt for example in examples}
        try:
            scorer = Scorer(
                self.model,
                self.tokenizer,
                tests,
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
        "step": ONE_STEP,
        "drift_texts": DRIFT_TEXTS,
        "added": {"examples": ADDED_EXAMPLES, "steps": ADDED_STEPS, "size": ADDED_SIZE},
        "base": bench.kept("base", lambda: {own.name: bench.gained(own, bench.base(own)[1]) for own in (task, other)}),
        "labels": {},
        "sum": {},
    }

    def write() -> None:
        write_result("labels", found)

    def stepped(count: int) -> dict[str, Any]:
        return bench.priced(*bench.sharpened(task, drawn(task, count), ONE_STEP).interventions(), [task])

    def line(count: int, name: str, measure: Callable[[], dict[str, Any]]) -> None:
        found["labels"].setdefault(str(count), {})[name] = bench.kept(f"{name}-{count}", measure)
        write()

    few, many = [count for count in counts if count <= 100], [count for count in counts if count > 100]
    for count in few:
        line(count, "step", functools.partial(stepped, count))
        line(count, "shots", functools.partial(bench.shown, task, drawn(task, count)))
    recipes: dict[str, strop.Recipe] = {}
    for own in (task, other):
        saved = folder / f"recipe-{own.name}"
        if not saved.is_dir():
            spectrum = bench.sharpened(own, drawn(own, ADDED_EXAMPLES), ADDED_SIZE, ADDED_STEPS)
            edits, tensors = spectrum.interventions()
            strop.Recipe.of(bench.model, edits, tensors=tensors).save(saved)
        recipes[own.name] = strop.Recipe.load(saved)
    for name, recipe in (*recipes.items(), ("both", recipes[TASK] + recipes[OTHER])):
        scalings = [edit for edit in recipe.interventions if isinstance(edit, SpectrumScaling)]
        found["sum"][name] = bench.kept(
            f"sum-{name}", functools.partial(bench.priced, scalings, recipe.tensors, [task, other])
        )
        write()
    for count in many:
        line(count, "step", functools.partial(stepped, count))
    for count in many:
        line(count, "shots", functools.partial(bench.shown, task, drawn(task, count)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=300, help="most test rows of a task")
    parser.add_argument("--counts", default=",".join(map(str, COUNTS)), help="numbers of labelled examples")
    parser.add_argument("--runs", type=Path, default=Path("runs/labels"), help="folder that lines are kept in")
    asked = parser.parse_args()
    main(asked.rows, asked.runs, [int(count) for count in asked.counts.split(",")])
