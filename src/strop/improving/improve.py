"""Improve a model at a task: race all methods under one budget, choose, and prove the choice on held-out examples."""

import dataclasses
import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import yaml
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from strop.checkpoints import takes_names
from strop.errors import UsageError
from strop.export import export_peft
from strop.files import write_text
from strop.improving.foresight import RaceForesight
from strop.improving.improver import Improver
from strop.improving.keeping import LEADERBOARD
from strop.improving.pace import Pace, Tempo
from strop.improving.plan import EFFORTS, ImprovePlan
from strop.improving.reserve import MOST_TO_PROVE, Proof, Reserve
from strop.proving import Assignment, Budget, DriftFromBase, Guard, RunOptions, RunOutcome, RunSettings, conduct
from strop.runs import Leaderboard
from strop.scoring import writes
from strop.tasks import TaskSource, content_with_shots, load_task, refuse_objective

ADAPTER = "adapter"
"""What a winning LoRA is saved as, beside the recipe: an adapter that PEFT loads."""
PROMPTED = "task.yaml"
"""What a winning prompt is saved as, beside the recipe: the task, asked with it."""

FEWEST_PROVED = 100
"""Test examples that are measured at least, where there are as many."""


@takes_names
def improve(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: TaskSource,
    plan: ImprovePlan | None = None,
    options: RunOptions | None = None,
) -> RunOutcome:
    """Race methods under one budget, choose the best, or none, by the select split, and prove it on held-out examples.

    Successive halving (Jamieson and Talwalkar, arXiv 1502.07943): each round has more data, and the better half of those in
    the round before; all of a round are judged on the same select examples. What is chosen is better than the model as it is,
    and than the best constant answer, beyond chance; else nothing is edited. Solved examples in the prompt and a LoRA are in
    the running too; of two that gain as much within one standard error, the one whose requests are shorter is chosen. The test
    split is scored once, for the one choice. The model is left as it was.

    The budget is all of it, in seconds: loading, choosing and the held-out measurement.

    Args:
        model: a causal language model, or a classifier where the task has labels, with nothing attached;
            its name or folder stands for it and its tokenizer.
        tokenizer: its fast tokenizer.
        task: a task, or what `load_task` takes.
        plan: the settings.
        options: what to spend, what to guard and where to write; without a budget the preset's holds.

    Raises:
        RunError: the run folder is in use, is being worked on, or was begun with other settings.
        InterventionError: something is attached to the model.
        TaskError: a row does not fit the model, or a split is empty.
        UsageError: there is a recipe to begin with, or nothing can be tried for the task.
    """
    began, source = time.monotonic(), task
    task = load_task(task)
    plan, options = plan or ImprovePlan(), options or RunOptions()
    refuse_objective(task, plan.objective)
    if options.after is not None:
        raise UsageError("improve begins with the model as it is; leave out the recipe to begin with (after).")
    if options.budget.seconds is None:
        budget = Budget(seconds=plan.effort.seconds, evaluations=options.budget.evaluations)
        options = dataclasses.replace(options, budget=budget)
    with options.in_force():
        given = Assignment.of(model, tokenizer, task, options)
        options = _guarded(plan, given, options)
        budget_seconds = options.budget.seconds or plan.effort.seconds
        tempo = Tempo(Pace.measured(given), budget_seconds=budget_seconds)
        plan, reserve = _sized(plan, given, tempo, options, budget_seconds)
        improver = Improver(given, plan, reserve=reserve, drift_text=options.drift_text)
        for line in _expectation(improver, plan, reserve):
            options.progress.note(line)
        spent = options.spent_seconds + time.monotonic() - began
        settings = RunSettings.of("improve", plan)
        found = conduct(
            improver,
            settings,
            dataclasses.replace(options, spent_seconds=spent, budget=Budget(evaluations=options.budget.evaluations)),
            finishing=lambda outcome: _with_leaderboard(outcome, improver, source),
            foresight=RaceForesight(improver),
        )
    if found.leaderboard is None and found.folder is not None:  # it was finished already
        return dataclasses.replace(found, leaderboard=Leaderboard.read(found.folder / LEADERBOARD))
    return found


def _guarded(plan: ImprovePlan, given: Assignment, options: RunOptions) -> RunOptions:
    """Return options with the plan's bound on drift, unless one is given: what a model says elsewhere is not to be spent."""
    named = any(guard.measure.name == "drift" for guard in options.guards)
    if plan.drift is None or named or not writes(given.model, given.anatomy):
        return options
    bound = Guard(DriftFromBase(options.drift_text), plan.drift)
    return dataclasses.replace(options, guards=(*options.guards, bound))


def _resumed(plan: ImprovePlan, options: RunOptions) -> ImprovePlan | None:
    """Return the plan that a run began with, which how fast the machine was then has a part in; None for a new run."""
    if not options.resume or options.folder is None or plan.test_limit is not None:
        return None
    try:
        content = json.loads((options.folder / "config.json").read_text(encoding="utf-8"))
        limit = content["plan"]["test_limit"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return dataclasses.replace(plan, test_limit=limit) if isinstance(limit, int) else plan


def _sized(
    plan: ImprovePlan, given: Assignment, tempo: Tempo, options: RunOptions, budget_seconds: float
) -> tuple[ImprovePlan, Reserve]:
    """Return a plan whose look at test takes its share of the budget at most, of a large split on a sample, and what that is."""
    guarded = any(guard.measure.name == "drift" for guard in options.guards)  # which has read the base's side of it
    continues = writes(given.model, given.anatomy)
    asks = options.rivals and given.task.labels is None and given.task.score != "perplexity"
    available = len(given.task.examples("test", limit=plan.test_limit))
    proof = Proof(
        examples=available,
        fewest=FEWEST_PROVED if plan.test_limit is None else available,
        drift_readings=int(continues and not guarded),
        continues=continues,
        rivals=tempo.time_asking(given) if asks else (),
    )
    reserve = Reserve(tempo, proof, budget_seconds=budget_seconds)
    begun = _resumed(plan, options)
    if begun is None and plan.test_limit is None:
        most = reserve.fitting(MOST_TO_PROVE * budget_seconds)
        begun = plan if most >= available else dataclasses.replace(plan, test_limit=most)
    plan = begun or plan
    proof = dataclasses.replace(proof, examples=len(given.task.examples("test", limit=plan.test_limit)))
    return plan, Reserve(tempo, proof, budget_seconds=budget_seconds)


def _expectation(improver: Improver, plan: ImprovePlan, reserve: Reserve) -> Iterator[str]:
    """Say before it begins what fits the budget, what the look at test will take, and what more would add."""
    task, test = improver.given.task, reserve.proof.examples
    names = ", ".join(own.name for own in improver.contenders)
    rounds, most = len(plan.effort.rounds), plan.counts(task.counts["select"])[-1]
    yield f"in {reserve.budget_seconds:.0f} s: {names}; in {rounds} rounds of up to {most} select examples"
    sample = f"a sample of {test} of {task.counts['test']}" if test < task.counts["test"] else f"{test}"
    yield f"the measurement on {sample} held-out examples will take about {reserve.seconds():.0f} s of it"
    if plan.drift is not None and writes(improver.given.model, improver.given.anatomy):
        yield f"guard: drift at most {plan.drift:g} nats per token (--guard none lifts it)"
    for name, (_, why) in improver.left_out.items():
        yield f"left out: {name}: {why}"
    more = plan.next_preset
    if more is not None:
        added = [name for name in EFFORTS[more].contenders if name not in plan.effort.contenders]
        yield f"--preset {more} ({EFFORTS[more].seconds / 60:.0f} min) adds {', '.join(added)}, and more examples"


def _with_leaderboard(outcome: RunOutcome, improver: Improver, source: TaskSource) -> RunOutcome:
    """Return a run's outcome with the final leaderboard, and write that, a winning LoRA and a winning prompt, into its folder."""
    board = improver.final_leaderboard(outcome)
    folder = outcome.folder
    if folder is not None:
        board.save(folder / LEADERBOARD)
        if outcome.recipe.interventions and all(own.method == "lora" for own in outcome.recipe.interventions):
            shutil.rmtree(folder / ADAPTER, ignore_errors=True)  # of a sitting that was stopped behind it
            export_peft(improver.given.model, outcome.recipe, folder / ADAPTER, family=improver.given.anatomy.family)
        if outcome.result.prompt is not None and isinstance(source, str | Path):
            shots = outcome.result.prompt.shots
            write_text(folder / PROMPTED, yaml.safe_dump(content_with_shots(source, count=shots), sort_keys=False))
    return dataclasses.replace(outcome, leaderboard=board)
