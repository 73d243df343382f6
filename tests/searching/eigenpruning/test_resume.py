"""A pruning that was interrupted goes on to the same answer and repeats nothing."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.fixtures.runs import Notes, figures_of, trials_of

import strop
from strop.anatomy import MatrixType, WeightSite
from strop.interventions import RankReduction, SingularValuePruning
from strop.progress import Progress
from strop.proving import RunOptions, RunOutcome, Trial
from strop.recipe import Recipe
from strop.scoring import Scorer
from strop.searching import PrunePlan
from strop.searching.eigenpruning import prune
from strop.tasks import Task

pytestmark = pytest.mark.thorough

QUICK = PrunePlan(fractions=(0.02, 0.05, 0.1), iterate=3, patience=3)
A_ROUND = 5
"""Its trials: three screened on train, two of them scored on select."""


@pytest.fixture(scope="module")
def whole_prunings() -> dict[str, RunOutcome]:
    """Those done so far, by their bias."""
    return {}


@pytest.fixture
def whole(
    answering: Callable[..., Any], small_tokenizer: Any, even: Task, whole_prunings: dict[str, RunOutcome]
) -> Callable[[Any], RunOutcome]:
    """Prune by a bias without an interruption, once for all tests: the same settings write the same."""

    def find(bias: Any) -> RunOutcome:
        if bias not in whole_prunings:
            plan = dataclasses.replace(QUICK, bias=bias)
            whole_prunings[bias] = prune(answering(), small_tokenizer, even, plan)
        return whole_prunings[bias]

    return find


@pytest.mark.parametrize(
    ("bias", "stop"),
    [
        ("none", 1),  # "no edit"
        ("mean", 5),  # in the middle of a round
        ("position", 1 + A_ROUND),  # at the end of one
        ("mean", 2 + 2 * A_ROUND),
    ],
)
def test_a_pruning_interrupted_after_any_trial_goes_on_and_repeats_none(
    answering: Callable[..., Any],
    small_tokenizer: Any,
    even: Task,
    gone_on: Callable[..., tuple[RunOutcome, list[Trial]]],
    whole: Callable[[Any], RunOutcome],
    bias: Any,
    stop: int,
) -> None:
    plan = dataclasses.replace(QUICK, bias=bias)
    again, finished = gone_on(lambda options: prune(answering(), small_tokenizer, even, plan, options), stop)
    expected = whole(bias)
    assert max(trial.key.round for trial in expected.trials) == 3
    assert expected.recipe.interventions
    assert trials_of(again) == trials_of(expected)
    assert figures_of(again) == figures_of(expected)
    assert again.recipe == expected.recipe
    assert again.result.cost.wall_seconds >= finished[stop - 1].elapsed_seconds


def test_a_pruning_interrupted_while_it_asks_the_gradient_goes_on(
    answering: Callable[..., Any],
    small_tokenizer: Any,
    even: Task,
    whole: Callable[[Any], RunOutcome],
    tmp_path: Path,
) -> None:
    class Interrupting(Progress):
        def start(self, stage: str, total: int) -> None:
            if stage == "round 2: asking the gradient":
                raise KeyboardInterrupt

    plan = dataclasses.replace(QUICK, bias="position")
    with pytest.raises(KeyboardInterrupt):
        prune(
            answering(),
            small_tokenizer,
            even,
            plan,
            options=RunOptions(out=tmp_path / "run", progress=Interrupting()),
        )
    notes = Notes()
    again = prune(
        answering(), small_tokenizer, even, plan, options=RunOptions(out=tmp_path / "run", resume=True, progress=notes)
    )
    assert not any(stage.startswith("round 1:") for stage in notes.stages)  # not even the gradient
    expected = whole("position")
    assert (figures_of(again), again.recipe) == (figures_of(expected), expected.recipe)


@pytest.mark.parametrize("stop", [1, 4 + A_ROUND])
def test_a_pruning_after_a_recipe_goes_on_too(
    answering: Callable[..., Any],
    small_tokenizer: Any,
    task: Task,
    tmp_path: Path,
    gone_on: Callable[..., tuple[RunOutcome, list[Trial]]],
    stop: int,
) -> None:
    model = answering()
    after = Recipe.of(model, [RankReduction(WeightSite(1, MatrixType.UP), 0.25)])
    again, _ = gone_on(lambda options: prune(model, small_tokenizer, task, QUICK, options), stop, after=after)
    whole = prune(model, small_tokenizer, task, QUICK, options=RunOptions(after=after))
    assert (figures_of(again), again.recipe) == (figures_of(whole), whole.recipe)
    with pytest.raises(strop.StropError, match=r"began with plan\.after = \[\{.*, and now it is None: resume with"):
        prune(model, small_tokenizer, task, QUICK, options=RunOptions(out=tmp_path / "run", resume=True))


def test_a_recipe_that_carries_other_tensors_is_another_to_begin_with(
    answering: Callable[..., Any],
    small_tokenizer: Any,
    task: Task,
    tmp_path: Path,
    finished_trials: Callable[..., list[Trial]],
) -> None:
    model = answering()
    edits = [SingularValuePruning(WeightSite(1, MatrixType.UP), (3,), bias="mean")]
    first, second = (Recipe.of(model, edits, tensors=[{"bias": torch.full((48,), share)}]) for share in (0.01, 0.02))
    finished_trials(2)
    with pytest.raises(KeyboardInterrupt):
        prune(model, small_tokenizer, task, QUICK, options=RunOptions(after=first, out=tmp_path / "run"))
    with pytest.raises(strop.StropError, match=r"began with plan\.after = .* resume with the same"):
        prune(
            model,
            small_tokenizer,
            task,
            QUICK,
            options=RunOptions(after=second, out=tmp_path / "run", resume=True),
        )


def test_where_nothing_was_written_the_end_is_reached_from_the_study_alone(
    answering: Callable[..., Any], small_tokenizer: Any, task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the test split is scored anew, and no gradient asked for: the rounds are in the study."""
    first = prune(answering(), small_tokenizer, task, QUICK, options=RunOptions(out=tmp_path / "run"))
    (tmp_path / "run" / "result.json").unlink()
    real, scored = Scorer.evaluate, []

    def watched(self: Scorer, **arguments: Any) -> Any:
        scored.append(self.example_count)
        return real(self, **arguments)

    monkeypatch.setattr(Scorer, "evaluate", watched)
    monkeypatch.setattr("strop.searching.asking.measure_effects", lambda *_, **__: pytest.fail("asked again"))
    again = prune(answering(), small_tokenizer, task, QUICK, options=RunOptions(out=tmp_path / "run", resume=True))
    assert scored == [24, 24]  # the base and the edited model, on test
    assert (figures_of(again), again.recipe) == (figures_of(first), first.recipe)


def test_other_settings_are_refused_with_the_first_that_differs(
    answering: Callable[..., Any],
    small_tokenizer: Any,
    task: Task,
    tmp_path: Path,
    finished_trials: Callable[..., list[Trial]],
) -> None:
    finished_trials(2)
    with pytest.raises(KeyboardInterrupt):
        prune(answering(), small_tokenizer, task, QUICK, options=RunOptions(out=tmp_path / "run"))
    cases: list[tuple[dict[str, Any], str]] = [
        ({"bias": "mean"}, r"plan\.bias = 'none', and now it is 'mean'"),
        ({"seed": 1, "bias": "mean"}, r"plan\.bias = 'none', and now it is 'mean'"),
        ({"fractions": (0.02,)}, r"plan\.fractions = \[0\.02, 0\.05, 0\.1\], and now it is \[0\.02\]"),
        ({"scopes": ("per-type",)}, r"plan\.scopes = \['global'\], and now it is \['per-type'\]"),
    ]
    for settings, said in cases:
        other = dataclasses.replace(QUICK, **settings)
        with pytest.raises(strop.StropError, match=rf"began with {said}: resume with the same settings"):
            prune(answering(), small_tokenizer, task, other, options=RunOptions(out=tmp_path / "run", resume=True))
    with pytest.raises(strop.StropError, match="holds a run that was interrupted: go on with it by --resume"):
        prune(answering(), small_tokenizer, task, QUICK, options=RunOptions(out=tmp_path / "run"))


def test_a_pruning_is_not_a_search_gone_on_with(
    answering: Callable[..., Any], small_tokenizer: Any, task: Task, tmp_path: Path
) -> None:
    prune(answering(), small_tokenizer, task, QUICK, options=RunOptions(out=tmp_path / "run"))
    with pytest.raises(strop.StropError, match="began with command = 'prune', and now it is 'search'"):
        strop.search(answering(), small_tokenizer, task, options=RunOptions(out=tmp_path / "run", resume=True))


def test_the_same_settings_write_the_same_twice(
    answering: Callable[..., Any], small_tokenizer: Any, even: Task, tmp_path: Path
) -> None:
    plan = dataclasses.replace(QUICK, bias="position", iterate=1, select_limit=8, test_limit=9, counterfactual="roll")
    found = [
        prune(answering(), small_tokenizer, even, plan, options=RunOptions(out=tmp_path / name))
        for name in ("one", "two")
    ]
    assert figures_of(found[0]) == figures_of(found[1])
    assert found[0].result.task.counts == {"select": 8, "test": 9}
    one, two = ((tmp_path / name / "recipe" / "recipe.json").read_text() for name in ("one", "two"))
    assert one == two
    logs = [(tmp_path / name / "log.txt").read_text().splitlines() for name in ("one", "two")]
    assert [line.split(" ", 1)[1] for line in logs[0]] == [line.split(" ", 1)[1] for line in logs[1]]
    assert json.loads((tmp_path / "one" / "config.json").read_text())["command"] == "prune"
