"""What every run ends with: the choice measured once on held-out examples, as figures, a recipe and a run folder."""

import dataclasses
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch import Tensor
from transformers import PreTrainedModel

from strop.anatomy import Anatomy
from strop.checkpoints import BaseIdentity, identify
from strop.errors import InterventionError, RunError, UsageError
from strop.interventions import Head, Intervention, applied_interventions, attachments_of, matrix_of
from strop.interventions.base import Decompose
from strop.progress import SILENT, Progress
from strop.recipe import Recipe
from strop.runs.environment import Stopwatch, peak_rss_bytes, versions, without_password
from strop.runs.folder import RunFolder
from strop.runs.processes import of_all_processes, process_index
from strop.runs.result import RunResult
from strop.runs.trials import CandidateSpace, Trial, TrialBook
from strop.scoring import ClassScorer, Evaluation, Scorer, compare
from strop.tasks import Task
from strop.wording import p_in_words

TEST_STATE_BUDGET_BYTES = 512 * 2**20
"""Up to this size the hidden states of the base's pass over test are kept and reused for the edited model's."""


@dataclasses.dataclass(frozen=True)
class RunOutcome:
    """What a search, a pruning or a training found."""

    recipe: Recipe
    result: RunResult
    """The figures, as result.json holds them."""
    trials: tuple[Trial[Any], ...]
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
        measured, unit = (self.result.metric, "") if self.result.metric is not None else (measured, unit)
        low, high = comparison["ci95"]
        return (
            f"{self.recipe}\n"
            f"{measured} on {base['count']} held-out examples: {base[measured]:.4f} -> {edited[measured]:.4f}{unit} "
            f"(gain {comparison['gain']:+.4f}, 95 % interval {low:+.4f} to {high:+.4f}, {p_in_words(comparison['p_value'])})"
        )


@dataclasses.dataclass(frozen=True, eq=False)
class Choice:
    """What the select split chose."""

    interventions: tuple[Intervention, ...]
    """In the order they are applied; none where nothing helped."""
    unedited: Trial[Any]
    """The model as it was."""
    best: Trial[Any]
    """The choice; `unedited` where nothing helped."""
    tokens: int
    """Tokens read on the way to it, as if each pass had run the whole model."""
    tensors: tuple[Mapping[str, Tensor], ...] = ()
    """For each intervention, what its recipe carries; empty where none carries any."""
    started_from: tuple[Intervention, ...] = ()
    """Those of the interventions that were there before."""
    start: Trial[Any] | None = None
    """The model with these."""
    head: Head | None = None
    """The classification head that goes with the interventions."""
    start_head: Head | None = None
    """The one that was there before."""


@dataclasses.dataclass(frozen=True)
class Journal:
    """Where a search writes what it does."""

    book: TrialBook[Any]
    """Finished trials."""
    run: RunFolder | None
    """The folder whose log is written, where there is one."""
    progress: Progress
    stopwatch: Stopwatch
    """Runs since the search began, earlier sittings included."""
    folder: Path | None = None
    """The run folder, where there is one; of several processes only the first has `run` and writes there."""

    def say(self, line: str) -> None:
        """Tell a decision to whoever watches, and to the log."""
        self.progress.note(line)
        if self.run is not None:
            self.run.log(line)

    def record(self, number: int, candidate: Any, evaluation: Evaluation, *, split: str = "select") -> Trial[Any]:
        """Write what a candidate scored in a round; None is "no edit"."""
        trial = Trial(
            round=number,
            candidate=candidate,
            examples=evaluation.count,
            split=split,
            accuracy=evaluation.accuracy,
            loss=evaluation.mean_loss,
            elapsed_seconds=self.stopwatch.seconds,
            metric=evaluation.metric,
        )
        self.book.add(trial)
        return trial


@dataclasses.dataclass(frozen=True, kw_only=True)
class Assignment:
    """What every search is given: a model, a task, where to write, and the settings its answer depends on.

    Raises:
        InterventionError: something is attached to the model.
        UsageError: there is nothing to resume.
    """

    command: Literal["search", "prune", "train"]
    model: PreTrainedModel
    task: Task
    anatomy: Anatomy
    settings: Mapping[str, Any]
    """All settings, as config.json holds them."""
    seed: int
    test: Scorer | ClassScorer
    """The held-out examples."""
    out: Path | None
    storage: str | None
    resume: bool
    with_factors: bool
    decompose: Decompose
    progress: Progress
    together: bool = False
    """Several processes work on it, and all of them conduct it."""

    def __post_init__(self) -> None:
        if attachments_of(self.model):
            raise InterventionError("Something is attached to this model already; detach it first.")
        if self.out is None and self.resume:
            raise UsageError("Only a run with a folder can be resumed; name it with out=.")

    def config(self, base: BaseIdentity) -> dict[str, Any]:
        """Return all that the answer depends on."""
        return {
            "command": self.command,
            "base_model": dataclasses.asdict(base),
            "task": {"name": self.task.name, "fingerprint": self.task.fingerprint},
            "plan": dict(self.settings),
            "storage": without_password(self.storage) if self.storage is not None else None,
        }


def conduct(given: Assignment, space: CandidateSpace[Any], choose: Callable[[Journal], Choice]) -> RunOutcome:
    """Let the select split choose, then measure the choice once on test and write down all of it.

    Of several processes the first does so, and the others take part in the choice and return what it found.

    Args:
        given: the assignment.
        space: of the candidates.
        choose: makes the choice, on the model as it is.

    Raises:
        RunError: the folder is in use, or was begun with other settings.
    """
    if not given.together:
        return _lead(given, space, choose)
    if process_index() == 0:
        outcome = _lead(given, space, choose)
        of_all_processes(outcome)
        return outcome
    _follow(given, space, choose)
    found: list[RunOutcome | None] = of_all_processes(None)
    return next(outcome for outcome in found if outcome is not None)


def _lead(given: Assignment, space: CandidateSpace[Any], choose: Callable[[Journal], Choice]) -> RunOutcome:
    base = identify(given.model)
    run = RunFolder.start(given.out, given.config(base), resume=given.resume) if given.out is not None else None
    if run is not None and run.finished:
        given.progress.note(f"{run.path} is finished already; nothing was repeated")
        return RunOutcome(run.recipe(), run.result(), (), run.path)
    book = _open_book(given, run, space)
    elapsed_seconds = max((trial.elapsed_seconds for trial in book.trials), default=0.0)
    journal = Journal(book, run, given.progress, Stopwatch(elapsed_seconds), run.path if run else None)
    choice = choose(journal)
    measured = _measure(given.test, choice, given.decompose, given.progress)
    result = _result(given, base, journal, choice, measured)
    recipe = Recipe.of(
        given.model,
        choice.interventions,
        tensors=choice.tensors or None,
        base=base,
        family=given.anatomy.family,
        provenance=_provenance(given, result),
        head=choice.head,
    )
    if given.with_factors:
        recipe = recipe.with_factors(given.model, family=given.anatomy.family, decompose=given.decompose)
    if run is not None:
        run.finish(recipe, result)
    return RunOutcome(recipe, result, book.trials, run.path if run else None, (measured["base"], measured["edited"]))


def _follow(given: Assignment, space: CandidateSpace[Any], choose: Callable[[Journal], Choice]) -> None:
    """Take part in the choice, silently; the first process writes result.json only when all have."""
    if given.out is None or not RunFolder(given.out, run_id="").finished:
        book: TrialBook[Any] = TrialBook(None, name=given.command, space=space)
        choose(Journal(book, None, SILENT, Stopwatch(), given.out))


def _open_book(given: Assignment, run: RunFolder | None, space: CandidateSpace[Any]) -> TrialBook[Any]:
    name = f"{given.command}-{run.id if run is not None else uuid.uuid4().hex}"
    try:
        return TrialBook(given.storage or (run.study_url if run is not None else None), name=name, space=space)
    except RunError:
        if run is not None:
            run.discard_if_empty()
        raise


def states_below(scorer: Scorer | ClassScorer, layer: int) -> list[Tensor] | None:
    """Return what enters a layer for each batch of a scorer, where it may be kept and reused, or None.

    Args:
        scorer: of a language model; a classifier is always run whole.
        layer: the lowest that anything edits.
    """
    if layer == 0 or isinstance(scorer, ClassScorer) or scorer.state_bytes > TEST_STATE_BUDGET_BYTES:
        return None
    return scorer.states_entering(layer)


def _measure(
    scorer: Scorer | ClassScorer, choice: Choice, decompose: Decompose, progress: Progress
) -> dict[str, Evaluation]:
    """Score base, start and edited model on the same examples, reusing what lies below the lowest edit."""
    tensors = choice.tensors or ({},) * len(choice.interventions)
    lowest = min((edit.site.layer for edit in choice.interventions), default=0)
    stages = {"start": len(choice.started_from), "edited": len(choice.interventions)}
    counts = {name: count for name, count in stages.items() if count}
    progress.start("measuring on held-out examples", (1 + len(counts)) * scorer.steps)
    states = states_below(scorer, lowest)
    start = lowest if states is not None else 0
    measured = {"base": scorer.evaluate(start=start, states=states, progress=progress)}
    heads = {"start": choice.start_head, "edited": choice.head}
    for name, count in counts.items():
        with applied_interventions(
            scorer.model,
            choice.interventions[:count],
            anatomy=scorer.anatomy,
            tensors=tensors[:count],
            decompose=decompose,
            head=heads[name],
        ):
            measured[name] = scorer.evaluate(start=start, states=states, progress=progress)
    return {"edited": measured["base"], **measured}


def _result(
    given: Assignment,
    base: BaseIdentity,
    journal: Journal,
    choice: Choice,
    measured: Mapping[str, Evaluation],
) -> RunResult:
    select_count = choice.unedited.examples
    passes = len({id(evaluation) for evaluation in measured.values()})
    start = {}
    comparison = {"test": compare(measured["base"], measured["edited"], seed=given.seed).to_json()}
    if choice.start is not None and "start" in measured:
        start = {"select": _figures(choice.start), "test": measured["start"].figures.to_json()}
        over = compare(measured["start"], measured["edited"], seed=given.seed)
        comparison["test_over_start"] = over.to_json()
    return RunResult(
        command=given.command,
        seed=given.seed,
        base_model={"id": base.id, "fingerprint": base.fingerprint},
        task={"name": given.task.name, "counts": {"select": select_count, "test": given.test.example_count}},
        base={"select": _figures(choice.unedited), "test": measured["base"].figures.to_json()},
        edited={"select": _figures(choice.best), "test": measured["edited"].figures.to_json()},
        start=start,
        comparison=comparison,
        interventions=[
            entry.to_json(_shape(given.anatomy.read_weight(given.model, matrix_of(entry))))
            for entry in choice.interventions
        ],
        cost={
            "wall_seconds": round(journal.stopwatch.seconds, 3),
            "evaluations": len(journal.book.trials) + passes,
            "tokens": choice.tokens + passes * given.test.tokens,
            "peak_rss_bytes": peak_rss_bytes(),
        },
        versions=versions(),
        metric=measured["base"].metric[0] if measured["base"].metric is not None else None,
        head={"labels": list(choice.head.labels), "parameters": choice.head.parameter_count} if choice.head else None,
    )


def in_words(trial: Trial[Any]) -> str:
    """Return a trial's figures as a log line ends with them."""
    figures = {} if trial.accuracy is None else {"accuracy": trial.accuracy}
    figures |= {trial.metric[0]: trial.metric[1]} if trial.metric is not None else {}
    shown = "".join(f"{name} {value:.4f}, " for name, value in figures.items())
    return f"{shown}loss {trial.loss:.4f} on {trial.split}"


def _figures(trial: Trial[Any]) -> dict[str, Any]:
    metric = {} if trial.metric is None else {"metric": trial.metric[0], trial.metric[0]: trial.metric[1]}
    return {"accuracy": trial.accuracy, "loss": trial.loss, "count": trial.examples, **metric}


def _shape(matrix: Tensor) -> tuple[int, int]:
    return matrix.shape[0], matrix.shape[1]


def _provenance(given: Assignment, result: RunResult) -> dict[str, Any]:
    return {
        "command": given.command,
        "task": given.task.name,
        "task_fingerprint": given.task.fingerprint,
        "seed": given.seed,
        "plan": dict(given.settings),
        "base": result.base["test"],
        "edited": result.edited["test"],
        "comparison": result.comparison["test"],
        "versions": result.versions,
    }
