"""A budget: it is kept, the best so far is the choice, and whoever allows more later goes on from there."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fixtures.runs import Notes, figures_of, reduction_of, trials_of

from strop.anatomy import MatrixType
from strop.errors import UsageError
from strop.interventions import Positions
from strop.proving import Budget, RunOptions, RunOutcome, Trial
from strop.recipe import Recipe
from strop.runs import BudgetUse, RunResult, Stopwatch
from strop.scoring import Scorer
from strop.searching import PrunePlan, SearchPlan, prune, search
from strop.tasks import Task
from strop.training import TrainPlan, train

pytestmark = pytest.mark.thorough

SEARCH = SearchPlan(strategy="exhaustive", layers=(1,), rank_fractions=(0.1, 0.5))
GREEDY = SearchPlan(
    compose="greedy", max_edits=3, rank_fractions=(0.1, 0.5), gradient_examples=8, top_matrices=3, finalists=2,
    matrix_types=(MatrixType.UP, MatrixType.DOWN, MatrixType.VALUE),
)  # fmt: skip
PRUNE = PrunePlan(fractions=(0.02, 0.05, 0.1), iterate=2)
TRAIN = TrainPlan(
    rank=2, layers=(1,), positions=Positions(1, 1), epochs=3, batch_size=6, accumulate=1, learning_rate=0.02
)
METHODS: dict[str, Any] = {"search": (search, GREEDY), "prune": (prune, PRUNE), "train": (train, TRAIN)}
ROUND_OF_PRUNE = 5
"""Three steps screened on train, two of them scored on select."""


def best_of(trials: list[Trial]) -> Trial:
    return max(trials, key=lambda trial: trial.merit)


@pytest.mark.parametrize("limits", [{"seconds": 0.0}, {"seconds": -1.0}, {"seconds": float("inf")}, {"evaluations": 0}])
def test_a_limit_that_is_not_positive_is_refused(limits: dict[str, Any]) -> None:
    (name,) = limits
    with pytest.raises(UsageError, match=f"A budget of {name} is "):
        Budget(**limits)


LIMITS = st.builds(
    Budget, seconds=st.one_of(st.none(), st.integers(1, 4)), evaluations=st.one_of(st.none(), st.integers(1, 4))
)


@settings(deadline=None, max_examples=60)
@given(LIMITS, LIMITS, st.integers(0, 5), st.integers(0, 5))
def test_what_exceeds_another_is_spent_no_earlier_and_exceeds_in_one_direction(
    one: Budget, other: Budget, seconds: int, evaluations: int
) -> None:
    exceeds = one.exceeds(seconds=other.seconds, evaluations=other.evaluations)
    if exceeds and one.is_spent(seconds=seconds, evaluations=evaluations):
        assert other.is_spent(seconds=seconds, evaluations=evaluations)
    assert not (exceeds and other.exceeds(seconds=one.seconds, evaluations=one.evaluations))
    assert not one.exceeds(seconds=one.seconds, evaluations=one.evaluations)


@pytest.mark.parametrize("limit", [1, 2, 6, 99])
def test_a_search_of_so_many_evaluations_chooses_the_best_of_them(
    answering: Callable[..., Any], small_tokenizer: Any, task: Task, limit: int
) -> None:
    options = RunOptions(budget=Budget(evaluations=limit))
    found = search(answering(), small_tokenizer, task, SEARCH, options)
    assert len(found.trials) == min(limit, 15)
    assert found.trials[0].key.method == "base"
    best = best_of(list(found.trials))
    assert [*found.recipe.interventions] == [edit for edit in (reduction_of(best),) if edit is not None]
    assert found.result.edited["select"] == best.figures
    assert found.result.budget == BudgetUse(None, limit, spent=limit < 15)
    assert found.recipe.provenance["plan"]["budget"] == {"seconds": None, "evaluations": limit}


@pytest.mark.parametrize("limit", [1, 3, 5, 1 + ROUND_OF_PRUNE, 8])
def test_a_pruning_of_so_many_evaluations_chooses_the_best_step_it_scored(
    answering: Callable[..., Any], small_tokenizer: Any, task: Task, limit: int
) -> None:
    notes = Notes()
    options = RunOptions(budget=Budget(evaluations=limit), progress=notes)
    found = prune(answering(), small_tokenizer, task, PRUNE, options)
    assert len(found.trials) == limit
    assert found.trials[0].key.method == "base"
    on_select = [trial for trial in found.trials if trial.key.split == "select"]
    rounds = [[trial for trial in on_select if trial.key.round == number] for number in (0, 1, 2)]
    winners = [min(of_round, key=lambda trial: trial.loss) for of_round in rounds if of_round]
    assert found.result.edited["select"] == best_of(winners).figures
    assert bool(found.recipe.interventions) == (len(on_select) > 1)
    assert f"The budget of {options.budget} is spent." in notes.lines


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_a_training_of_so_many_evaluations_ends_with_that_epoch(
    answering: Callable[..., Any], small_tokenizer: Any, task: Task, limit: int
) -> None:
    found = train(answering(), small_tokenizer, task, TRAIN, RunOptions(budget=Budget(evaluations=limit)))
    assert [trial.key.method for trial in found.trials] == ["base", *["loreft"] * (limit - 1)]
    assert found.result.edited["select"] == best_of(list(found.trials)).figures


def test_what_a_run_begins_with_is_scored_whatever_the_budget(
    answering: Callable[..., Any], small_tokenizer: Any, task: Task, laser: Recipe
) -> None:
    for method, plan in METHODS.values():
        options = RunOptions(after=laser, budget=Budget(evaluations=1))
        found = method(answering(), small_tokenizer, task, plan, options)
        assert [trial.key.method for trial in found.trials] == ["base", "start"]
        assert found.recipe.interventions == laser.interventions


@pytest.mark.parametrize("method", METHODS)
def test_seconds_are_overrun_by_one_unit_of_work_at_most(
    answering: Callable[..., Any],
    small_tokenizer: Any,
    task: Task,
    monkeypatch: pytest.MonkeyPatch,
    finished_trials: Callable[..., list[Trial]],
    method: str,
) -> None:
    """Each trial takes three seconds of a clock that stands still otherwise."""
    finished = finished_trials()
    monkeypatch.setattr(Stopwatch, "seconds", property(lambda _: 3.0 * len(finished)))
    run, plan = METHODS[method]
    found = run(answering(), small_tokenizer, task, plan, RunOptions(budget=Budget(seconds=7.0)))
    assert len(found.trials) == 3  # the last began at 6
    assert found.result.budget == BudgetUse(7.0, None, spent=True)


def test_an_epoch_that_began_in_time_is_finished_and_scored(
    answering: Callable[..., Any], small_tokenizer: Any, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock that ticks with each step of the training runs out in the middle of the first epoch."""

    class Steps(Notes):
        done = 0

        def advance(self, steps: int = 1) -> None:
            self.done += steps if self.stages[-1] == "training" else 0

    steps = Steps()
    monkeypatch.setattr(Stopwatch, "seconds", property(lambda _: float(steps.done)))
    options = RunOptions(budget=Budget(seconds=2.5), progress=steps)
    found = train(answering(), small_tokenizer, task, dataclasses.replace(TRAIN, batch_size=1), options)
    assert [trial.key.method for trial in found.trials] == ["base", "loreft"]
    assert steps.done == len(task.examples("train"))


@pytest.mark.parametrize(("method", "limit"), [("search", 9), ("prune", 10), ("train", 3)])
def test_a_run_killed_as_its_budget_was_spent_ends_as_if_it_had_not_been(
    answering: Callable[..., Any],
    small_tokenizer: Any,
    task: Task,
    gone_on: Callable[..., tuple[RunOutcome, list[Trial]]],
    method: str,
    limit: int,
) -> None:
    run, plan = METHODS[method]
    budget = Budget(evaluations=limit)
    again, _ = gone_on(lambda options: run(answering(), small_tokenizer, task, plan, options), limit, budget=budget)
    assert len(again.trials) == limit
    whole = run(answering(), small_tokenizer, task, plan, RunOptions(budget=budget))
    assert figures_of(again) == figures_of(whole)
    assert again.recipe == whole.recipe


@pytest.mark.parametrize(("method", "limit"), [("search", 9), ("prune", 5), ("train", 2)])
def test_a_larger_budget_goes_on_to_the_answer_of_a_run_that_had_it_from_the_start(
    answering: Callable[..., Any],
    small_tokenizer: Any,
    task: Task,
    tmp_path: Path,
    finished_trials: Callable[..., list[Trial]],
    method: str,
    limit: int,
) -> None:
    run, plan = METHODS[method]
    finished = finished_trials()

    def resumed(budget: Budget | None) -> RunOutcome:
        options = RunOptions(out=tmp_path / "run", resume=True, budget=budget or Budget())
        found: RunOutcome = run(answering(), small_tokenizer, task, plan, options)
        return found

    first = resumed(Budget(evaluations=limit))
    assert len(finished) == len(first.trials) == limit
    for no_larger in (Budget(evaluations=limit), Budget(evaluations=1), Budget(evaluations=limit + 9, seconds=60)):
        assert resumed(no_larger).result == first.result
    assert len(finished) == limit
    more = resumed(None)
    assert len({trial.key for trial in finished}) == len(finished) == len(more.trials) > limit
    assert RunResult.read(tmp_path / "run" / "result.json") == more.result
    assert Recipe.load(tmp_path / "run" / "recipe") == more.recipe
    whole = run(answering(), small_tokenizer, task, plan)
    assert figures_of(more) == figures_of(whole)
    assert trials_of(more) == trials_of(whole)
    assert more.recipe == whole.recipe


def test_a_run_that_ended_within_its_budget_is_not_gone_on_with(
    answering: Callable[..., Any],
    small_tokenizer: Any,
    task: Task,
    tmp_path: Path,
    finished_trials: Callable[..., list[Trial]],
) -> None:
    options = RunOptions(out=tmp_path / "run", budget=Budget(evaluations=99))
    first = search(answering(), small_tokenizer, task, SEARCH, options)
    finished = finished_trials()
    again = search(answering(), small_tokenizer, task, SEARCH, RunOptions(out=tmp_path / "run", resume=True))
    assert finished == []
    assert again.result == first.result


@pytest.mark.parametrize("moment", [3, 4])
def test_a_trial_that_had_begun_is_done_again_though_the_budget_is_spent_by_then(
    answering: Callable[..., Any],
    small_tokenizer: Any,
    task: Task,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    moment: int,
) -> None:
    scored, evaluate, spent = list[int](), Scorer.evaluate, [False]

    def dying(self: Scorer, **named: Any) -> Any:
        scored.append(1)
        if len(scored) == moment:
            raise KeyboardInterrupt
        return evaluate(self, **named)

    monkeypatch.setattr(Budget, "is_spent", lambda self, **_: spent[0])
    options = RunOptions(out=tmp_path / "run", budget=Budget(seconds=10_000), rivals=False)
    with monkeypatch.context() as patch:
        patch.setattr(Scorer, "evaluate", dying)
        with pytest.raises(KeyboardInterrupt):
            prune(answering(), small_tokenizer, task, PRUNE, options)
    spent[0] = True
    found = prune(answering(), small_tokenizer, task, PRUNE, dataclasses.replace(options, resume=True))
    assert len(found.trials) == moment
