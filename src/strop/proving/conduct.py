"""A whole run: hold its folder, let select choose, prove the choice once on test, write down all of it."""

import contextlib
import dataclasses
import math
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal, Protocol

import torch

from strop.errors import RunError, UsageError
from strop.files import remove_leftovers
from strop.progress import SILENT
from strop.proving.assignment import Assignment
from strop.proving.beside import write_beside
from strop.proving.budget import Budget
from strop.proving.choice import Choice
from strop.proving.deadline import UNHURRIED, Foresight
from strop.proving.drift import DriftFromBase
from strop.proving.guards import Guards, Ready, ready_guards
from strop.proving.held_out import HeldOut
from strop.proving.help import helped
from strop.proving.journal import Journal
from strop.proving.measures import Base
from strop.proving.options import RunOptions
from strop.proving.outcome import RunOutcome
from strop.proving.price import Priced, price_of
from strop.proving.processes import of_all_processes, process_index
from strop.proving.prove import Measurement, prove, provenance_of, result_of, unproved_recipe
from strop.proving.reads import what_is_read
from strop.proving.rivals import MeasuredRivals, measure_rivals
from strop.proving.study import Study
from strop.proving.trials import CandidateSpace, Trial
from strop.recipe import Recipe
from strop.runs import STUDY_FILE, BudgetUse, RunFolder, RunResult, Stopwatch, locked, without_password
from strop.scoring import ClassScorer, Scorer, asks_for_the_time, now
from strop.statistics import ObjectiveName, Rivals

Command = Literal["search", "prune", "sharpen", "train", "improve"]


class Plan(Protocol):
    """What the settings of every method have in common."""

    @property
    def seed(self) -> int:
        """Of all that is random."""
        ...

    @property
    def test_limit(self) -> int | None:
        """Most test examples to measure the choice on; None for all."""
        ...

    @property
    def objective(self) -> ObjectiveName:
        """Which accuracy the choice maximises."""
        ...

    def to_json(self) -> dict[str, Any]:
        """Return all settings as config.json holds them."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunSettings:
    """What a run's answer depends on besides its assignment."""

    command: Command
    plan: Mapping[str, Any]
    """All settings of the plan, as config.json holds them."""
    seed: int
    test_limit: int | None
    """Most test examples to measure the choice on; None for all."""
    objective: ObjectiveName = "average"
    """Which accuracy the choice maximises."""
    shared: bool = False
    """Its trials wait in the study until someone does them, and so others may."""
    together: bool = False
    """Several processes work on it, and all of them take part in the choice."""

    @classmethod
    def of(cls, command: Command, plan: Plan, *, shared: bool = False, together: bool = False) -> "RunSettings":
        """Return those of a command with a plan.

        Args:
            command: search, prune, sharpen or train.
            plan: its settings.
            shared: others may do its trials.
            together: several processes take part in the choice.
        """
        return cls(
            command=command,
            plan=plan.to_json(),
            seed=plan.seed,
            test_limit=plan.test_limit,
            objective=plan.objective,
            shared=shared,
            together=together,
        )


class Chooser(Protocol):
    """A method made ready for an assignment: it proposes, scores on select, and never meets a test example."""

    @property
    def given(self) -> Assignment:
        """What it is about."""
        ...

    @property
    def space(self) -> CandidateSpace[Any]:
        """How its candidates are kept in a study."""
        ...

    def choose(self, journal: Journal) -> Choice:
        """Make the choice on the model as it is, and leave the model so."""
        ...


def conduct(
    chooser: Chooser,
    settings: RunSettings,
    options: RunOptions,
    *,
    check_test: Callable[[Scorer | ClassScorer], None] | None = None,
    finishing: Callable[[RunOutcome], RunOutcome] | None = None,
    foresight: Foresight = UNHURRIED,
) -> RunOutcome:
    """Let the select split choose, then measure the choice once on test and write down all of it.

    Of several processes the first does so, and the others take part in the choice and return what it found.

    Args:
        chooser: makes the choice, without a look at test.
        settings: what the answer depends on besides.
        options: where it writes, and what it may spend.
        check_test: raises, before the choice is made, where it could not be measured on the test examples.
        finishing: writes what else there is beside the recipe, before the result that says the run is finished.
        foresight: of a budget that holds the proof too.

    Raises:
        RunError: the folder is in use, is being worked on, or was begun with other settings.
        TaskError: a row does not fit the model.
        UsageError: there are to be several workers, and each trial depends on the one before.
    """
    if options.workers > 1 and not settings.shared:
        raise UsageError(
            f"Only a search has work for several workers: {settings.command} works alone; leave workers out."
        )
    if not settings.together:
        return _lead(chooser, settings, options, check_test, finishing, foresight)
    if process_index() == 0:
        outcome = _lead(chooser, settings, options, check_test, finishing, foresight)
        of_all_processes(outcome)
        return outcome
    _follow(chooser, settings, options)
    found: list[RunOutcome | None] = of_all_processes(None)
    return next(outcome for outcome in found if outcome is not None)


def _lead(
    chooser: Chooser,
    settings: RunSettings,
    options: RunOptions,
    check_test: Callable[[Scorer | ClassScorer], None] | None,
    finishing: Callable[[RunOutcome], RunOutcome] | None,
    foresight: Foresight,
) -> RunOutcome:
    given, sitting = chooser.given, Stopwatch(options.spent_seconds)
    test = HeldOut.of(given, settings.test_limit)  # what does not fit is told before the choice
    if check_test is not None:
        check_test(test.scorer)
    options.drift_text.check(given.model, given.tokenizer, anatomy=given.anatomy)
    base = given.base
    ready = ready_guards(options.guards, Base(given.model, given.tokenizer, given.anatomy, base.fingerprint))
    plan = _plan_of(settings, options)
    config = _config_of(given, settings.command, plan, storage=options.storage)
    with _folder_of(options.folder, config, resume=options.resume) as run:
        if run is not None and run.finished:
            earlier = run.result()
            if not _goes_on(earlier, options.budget):
                options.progress.note(f"{run.path} is finished already; nothing was repeated")
                trials = _finished_trials(settings.command, run, chooser.space)
                return RunOutcome(Recipe.load(run.recipe_folder), earlier, trials, run.path)
        study = _open_study(settings.command, options.storage, run, chooser.space)
        study.requeue_abandoned(alone=True)  # whoever held one held the folder too
        journal = _journal(chooser, settings, options, study, ready, run, sitting)
        shared = settings.plan if settings.shared else None
        with helped(given, study, options, command=settings.command, plan=shared) as board:
            choice = _choose(chooser, dataclasses.replace(journal, board=board))
        spent = journal.is_spent or choice.cut_short  # measuring the choice is no part of the budget
        test = test.in_time(foresight, journal)
        plan = {**plan, "test_limit": test.limit}
        measured = prove(given, choice, test.scorer, progress=options.progress, foresight=foresight)
        priced = _price(given, choice, options, journal.guards, base.fingerprint)
        rivals = _rivals(given, choice, measured, test, settings, options, foresight)
        recipe = unproved_recipe(given, choice, base=base)
        result = result_of(
            recipe,
            choice,
            measured,
            priced,
            command=settings.command,
            task=given.task,
            seed=settings.seed,
            wall_seconds=journal.stopwatch.seconds,
            evaluations=math.ceil(journal.evaluations),
        )
        result = rivals.added_to(result)
        if options.budget.is_limited:  # no part of the config: whoever resumes may spend more
            plan = {**plan, "budget": dataclasses.asdict(options.budget)}
            result = dataclasses.replace(result, budget=BudgetUse(**plan["budget"], spent=spent))
        recipe = recipe.with_provenance(provenance_of(given, result, plan))
        if options.with_factors:
            recipe = recipe.with_factors(given.model, family=given.anatomy.family, decompose=given.decompose)
        trials = study.trials()
        study.close()  # before the result is written: a finished run has its study whole in one file
        path = run.path if run is not None else None
        outcome = RunOutcome(recipe, result, trials, path, (measured.base, measured.edited))
        if finishing is not None:
            outcome = finishing(outcome)
        if run is not None:
            run.finish(
                recipe.save,
                result,
                write_beside=lambda folder: write_beside(folder, given, choice, measured, test.examples),
            )
        return outcome


def _config_of(given: Assignment, command: Command, plan: Mapping[str, Any], *, storage: str | None) -> dict[str, Any]:
    """Return all that a run's answer depends on, as config.json holds it."""
    config: dict[str, Any] = {
        "command": command,
        "base_model": dataclasses.asdict(given.base),
        "task": {"name": given.task.name, "fingerprint": given.task.fingerprint},
        "plan": plan,
        "storage": without_password(storage) if storage is not None else None,
        "reads": what_is_read(given.model, given.tokenizer, given.task),
    }
    if asks_for_the_time(given.task.examples("test", limit=1), given.tokenizer):
        config["now"] = now().isoformat()
    return config


def _choose(chooser: Chooser, journal: Journal) -> Choice:
    """Let select choose, and read what the guards say of that."""
    given = chooser.given
    journal.guards.read_base()
    choice = chooser.choose(journal)
    if journal.is_spent:
        journal.say(f"the budget of {journal.budget} is spent: the best so far is chosen")
    if not journal.guards:
        return choice
    with choice.edits.applied(given.model, anatomy=given.anatomy, decompose=given.decompose):
        guards = journal.guards.readings(choice.best.key if choice.edits else None)
    return dataclasses.replace(choice, guards=guards)


def _price(given: Assignment, choice: Choice, options: RunOptions, guards: Guards, fingerprint: str) -> Priced:
    """Measure what a choice costs on text that has nothing to do with the task."""
    measure = DriftFromBase(options.drift_text)

    def edited() -> AbstractContextManager[object]:
        return choice.edits.applied(given.model, anatomy=given.anatomy, decompose=given.decompose)

    return price_of(
        given.model,
        given.tokenizer,
        edited if choice.edits else None,
        anatomy=given.anatomy,
        lowest=min((edit.site.layer for edit in choice.edits.interventions), default=0),
        text=options.drift_text,
        fingerprint=fingerprint,
        prepared=(guards.drift_of(measure, choice.best.key) if choice.edits else None) or guards.drift_scorer(measure),
        progress=options.progress,
    )


def _rivals(
    given: Assignment,
    choice: Choice,
    measured: Measurement,
    test: HeldOut,
    settings: RunSettings,
    options: RunOptions,
    foresight: Foresight,
) -> MeasuredRivals:
    if not options.rivals:
        return MeasuredRivals(Rivals())
    return measure_rivals(
        given,
        measured,
        test.scorer,
        test_limit=test.limit,
        run_tokens=choice.tokens + measured.tokens,
        seed=settings.seed,
        progress=options.progress,
        foresight=foresight,
    )


def _follow(chooser: Chooser, settings: RunSettings, options: RunOptions) -> None:
    """Take part in the choice, silently; the first process writes result.json only when all have."""
    folder = options.folder
    run = RunFolder(folder, run_id="") if folder is not None else None
    if run is None or not run.finished or _goes_on(run.result(), options.budget):
        silent = dataclasses.replace(options, progress=SILENT)
        study = Study(None, name="followed", spaces=[chooser.space])
        journal = _journal(chooser, settings, silent, study, (), None, Stopwatch())
        chooser.choose(dataclasses.replace(journal, folder=folder))


def _goes_on(finished: RunResult, budget: Budget) -> bool:
    """Return whether a finished run was cut short by its budget, and is allowed more now."""
    earlier = finished.budget
    return (
        earlier is not None
        and earlier.spent
        and budget.exceeds(seconds=earlier.seconds, evaluations=earlier.evaluations)
    )


def _journal(
    chooser: Chooser,
    settings: RunSettings,
    options: RunOptions,
    study: Study,
    ready: Ready,
    run: RunFolder | None,
    sitting: Stopwatch,
) -> Journal:
    earlier_seconds = max((trial.elapsed_seconds for trial in study.trials()), default=0.0)
    return Journal(
        study=study,
        space=chooser.space,
        stage="choice",
        progress=options.progress,
        stopwatch=Stopwatch(earlier_seconds + sitting.seconds),
        budget=options.budget,
        guards=Guards(ready, study=study),
        objective=settings.objective,
        run=run,
        folder=run.path if run is not None else None,
    )


@contextlib.contextmanager
def _folder_of(path: Path | None, config: Mapping[str, Any], *, resume: bool) -> Iterator[RunFolder | None]:
    """Hold the run's folder, so that no other process works on it, and begin or go on with the run in it."""
    if path is None:
        yield None
        return
    if path.exists() and not path.is_dir():
        raise RunError(f"{path} is a file, and a run needs a folder: choose another --out.")
    with locked(path):
        compute = {
            "torch_threads": torch.get_num_threads(),
            "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        }
        run = RunFolder.start(path, config, resume=resume, compute=compute)
        remove_leftovers(path)  # what a process that was killed left half-written
        yield run


def _plan_of(settings: RunSettings, options: RunOptions) -> dict[str, Any]:
    """Return all settings the answer depends on; what was not asked for is not written."""
    plan = dict(settings.plan)
    if options.after is not None or settings.command != "search":
        plan["after"] = options.after.describe_exactly() if options.after is not None else None
    if options.drift_text.text is not None:
        plan["drift_text"] = options.drift_text.fingerprint
    if options.guards:
        plan["guards"] = [guard.fingerprint for guard in options.guards]
    return plan


def _open_study(command: Command, storage: str | None, run: RunFolder | None, space: CandidateSpace[Any]) -> Study:
    name = f"{command}-{run.id if run is not None else uuid.uuid4().hex}"
    try:
        return Study(storage or (run.study_url if run is not None else None), name=name, spaces=[space])
    except RunError:
        if run is not None:
            run.discard_if_empty()
        raise


def _finished_trials(command: Command, run: RunFolder, space: CandidateSpace[Any]) -> tuple[Trial, ...]:
    """Return what a finished run tried; nothing where its study is not in its folder: its answer does not need it any more."""
    if not (run.path / STUDY_FILE).is_file():
        return ()
    with contextlib.suppress(RunError), contextlib.closing(_open_study(command, None, run, space)) as study:
        return study.trials()
    return ()
