"""Search for rank reductions: propose, score on select, keep the best, measure once on test."""

import dataclasses
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from strop.anatomy import Anatomy, Family, WeightSite
from strop.checkpoints import BaseIdentity, identify
from strop.errors import InterventionError, RunError, SiteError, UsageError
from strop.interventions import RankReduction, applied_interventions, attachments_of
from strop.interventions.base import Decompose
from strop.linalg import DecompositionCache
from strop.progress import SILENT, Progress
from strop.recipe import Recipe
from strop.runs import RunFolder, RunResult, Trial, TrialBook, peak_rss_bytes, versions, without_password
from strop.searching.chooser import Choice, Chooser, Journal, SelectExamples
from strop.searching.plan import SearchPlan
from strop.tasks import Evaluation, Scorer, Task, compare

TEST_STATE_BUDGET_BYTES = 512 * 2**20
"""Up to this size the hidden states of the base's pass over test are kept and reused for the edited model's."""


@dataclasses.dataclass(frozen=True)
class SearchResult:
    """What a search found."""

    recipe: Recipe
    result: RunResult
    """The figures, as result.json holds them."""
    trials: tuple[Trial, ...]
    """Everything that was tried, in the order it was finished."""
    folder: Path | None = None
    """The run folder, where there is one."""
    test_evaluations: tuple[Evaluation, Evaluation] | None = None
    """Example by example, of the base and of the chosen recipe; None where a finished run was only read back."""

    def fixed_indices(self) -> list[int]:
        """Return which test examples were wrong before and are right after."""
        if self.test_evaluations is None:
            return []
        before, after = self.test_evaluations
        if before.correct is None or after.correct is None:
            return []
        return [int(index) for index in np.flatnonzero(after.correct & ~before.correct)]

    def __str__(self) -> str:
        base, edited = self.result.base["test"], self.result.edited["test"]
        comparison = self.result.comparison["test"]
        measured, unit = ("accuracy", "") if base["accuracy"] is not None else ("loss", " nats per token")
        low, high = comparison["ci95"]
        return (
            f"{self.recipe}\n"
            f"{measured} on {base['count']} held-out examples: {base[measured]:.4f} -> {edited[measured]:.4f}{unit} "
            f"(gain {comparison['gain']:+.4f}, 95 % interval {low:+.4f} to {high:+.4f}, p = {comparison['p_value']:.2g})"
        )


def search(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    plan: SearchPlan | None = None,
    *,
    out: str | Path | None = None,
    storage: str | None = None,
    resume: bool = False,
    family: Family | None = None,
    with_factors: bool = False,
    decompositions: DecompositionCache | None = None,
    progress: Progress = SILENT,
) -> SearchResult:
    """Find which weight matrices to reduce to which rank, and prove the gain on held-out examples.

    The select split chooses, "no edit" is always a candidate, and the test split is scored once for the base and once
    for the chosen recipe, after the choice is made (rank reduction: LASER, arXiv 2312.13558; asking the gradient first:
    arXiv 2510.20800). The model is left as it was.

    Args:
        model: a causal language model, with nothing attached.
        tokenizer: its fast tokenizer.
        task: from `load_task`.
        plan: the settings; one edit found by the gradient by default.
        out: the run folder; nothing is written by default.
        storage: an Optuna storage address for the trials; study.db in the run folder by default.
        resume: go on with an interrupted run in `out`; finished trials are not repeated and the answer is the same.
        family: the spelling of an architecture Strop does not know.
        with_factors: put the low-rank factors into the recipe, so that applying it decomposes nothing.
        decompositions: the cache of decompositions; the one on disk by default.
        progress: told how far it is.

    Raises:
        RunError: `out` is in use, or was begun with other settings.
        InterventionError: something is attached to the model.
        TaskError: a row does not fit the model.
        SiteError: the model has no such layer or matrix type.
    """
    if attachments_of(model):
        raise InterventionError("Something is attached to this model already; detach it before searching.")
    if out is None and resume:
        raise UsageError("Only a run with a folder can be resumed; name it with out=.")
    plan = plan or SearchPlan()
    anatomy = Anatomy.of(model, family=family)
    shapes = _editable_shapes(model, anatomy, plan)
    base = identify(model)
    select = SelectExamples.of(model, tokenizer, task, plan, anatomy=anatomy)
    test_examples = task.examples("test", limit=plan.test_limit)
    test = Scorer(model, tokenizer, test_examples, task.score, anatomy=anatomy)
    config = _config(base, task, plan, storage)
    run = RunFolder.start(Path(out), config, resume=resume) if out is not None else None
    if run is not None and run.finished:
        progress.note(f"{run.path} is finished already; nothing was repeated")
        return SearchResult(run.recipe(), run.result(), (), run.path)
    journal = Journal(_open_book(storage, run, anatomy, shapes), run, progress)
    decompose = (decompositions or DecompositionCache()).decompose
    chooser = Chooser(select, plan, shapes, journal, decompose=decompose)
    choice = chooser.choose()
    measured = _measure(test, choice.edits, decompose, progress)
    result = _result(base, task, chooser, choice, test, measured)
    recipe = Recipe.of(
        model, choice.edits, base=base, family=anatomy.family, provenance=_provenance(result, task, plan)
    )
    if with_factors:
        recipe = recipe.with_factors(model, family=anatomy.family, decompose=decompose)
    if run is not None:
        run.finish(recipe, result)
    return SearchResult(recipe, result, journal.book.trials, run.path if run else None, measured)


def _config(base: BaseIdentity, task: Task, plan: SearchPlan, storage: str | None) -> dict[str, Any]:
    """Return all that the answer depends on."""
    return {
        "command": "search",
        "base_model": dataclasses.asdict(base),
        "task": {"name": task.name, "fingerprint": task.fingerprint},
        "plan": plan.to_json(),
        "storage": without_password(storage) if storage is not None else None,
    }


def _result(
    base: BaseIdentity,
    task: Task,
    chooser: Chooser,
    choice: Choice,
    test: Scorer,
    measured: tuple[Evaluation, Evaluation],
) -> RunResult:
    before, after = measured
    select_count = chooser.select.every.example_count
    passes = 2 if choice.edits else 1
    return RunResult(
        command="search",
        seed=chooser.plan.seed,
        base_model={"id": base.id, "fingerprint": base.fingerprint},
        task={"name": task.name, "counts": {"select": select_count, "test": test.example_count}},
        base={"select": _figures(choice.unedited, select_count), "test": before.summary()},
        edited={"select": _figures(choice.best, select_count), "test": after.summary()},
        comparison={"test": compare(before, after, seed=chooser.plan.seed).to_json()},
        interventions=[entry.to_json(chooser.shapes[entry.site]) for entry in choice.edits],
        cost={
            "wall_seconds": round(chooser.stopwatch.seconds, 3),
            "evaluations": len(chooser.journal.book.trials) + passes,
            "tokens": chooser.tokens + passes * test.tokens,
            "peak_rss_bytes": peak_rss_bytes(),
        },
        versions=versions(),
    )


def _editable_shapes(model: PreTrainedModel, anatomy: Anatomy, plan: SearchPlan) -> dict[WeightSite, tuple[int, int]]:
    """Return the (out, in) of every matrix the plan considers, refusing those that must be left alone."""
    sites = anatomy.sites(layers=plan.layers, matrix_types=plan.matrix_types)
    if not sites:
        raise SiteError("The chosen layers and matrix types leave no matrix to edit.")
    for site in sites:
        anatomy.refuse_tied(model, site)
    matrices = {site: anatomy.read_weight(model, site) for site in sites}
    return {site: (matrix.shape[0], matrix.shape[1]) for site, matrix in matrices.items()}


def _measure(
    scorer: Scorer, chosen: Sequence[RankReduction], decompose: Decompose, progress: Progress
) -> tuple[Evaluation, Evaluation]:
    lowest = min((edit.site.layer for edit in chosen), default=0)
    passes = 2 if chosen else 1
    progress.start("measuring on held-out examples", passes * len(scorer.batches))
    if lowest > 0 and scorer.state_bytes <= TEST_STATE_BUDGET_BYTES:
        states, start = scorer.states_entering(lowest), lowest
    else:
        states, start = None, 0
    before = scorer.evaluate(start=start, states=states, progress=progress)
    if not chosen:
        return before, before
    with applied_interventions(scorer.model, chosen, anatomy=scorer.anatomy, decompose=decompose):
        return before, scorer.evaluate(start=start, states=states, progress=progress)


def _open_book(
    storage: str | None, run: RunFolder | None, anatomy: Anatomy, shapes: Mapping[WeightSite, tuple[int, int]]
) -> TrialBook:
    name = f"search-{run.id}" if run is not None else f"search-{uuid.uuid4().hex}"
    largest_rank = max(min(shape) for shape in shapes.values())
    try:
        address = storage or (run.study_url if run is not None else None)
        return TrialBook(address, name=name, layer_count=anatomy.layer_count, largest_rank=largest_rank)
    except RunError:
        if run is not None:
            run.discard_if_empty()
        raise


def _figures(trial: Trial, count: int) -> dict[str, Any]:
    return {"accuracy": trial.accuracy, "loss": trial.loss, "count": count}


def _provenance(result: RunResult, task: Task, plan: SearchPlan) -> dict[str, Any]:
    return {
        "command": "search",
        "task": task.name,
        "task_fingerprint": task.fingerprint,
        "seed": plan.seed,
        "strategy": plan.strategy,
        "compose": plan.compose,
        "base": result.base["test"],
        "edited": result.edited["test"],
        "comparison": result.comparison["test"],
        "versions": result.versions,
    }
