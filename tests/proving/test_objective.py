"""What a choice maximises: accuracy over all examples, or the mean over categories of the accuracy in each."""

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.fixtures.runs import evaluated, figures_of, trials_of

from strop.errors import RunError, UsageError
from strop.interventions import Positions
from strop.proving import RunOptions, Trial
from strop.scoring import Evaluation
from strop.searching import PrunePlan, SearchPlan, prune, search
from strop.tasks import Task, load_task
from strop.training import TrainPlan, train

SEARCH = SearchPlan(strategy="exhaustive", rank_fractions=(0.1, 0.5), objective="macro")
PRUNE = PrunePlan(fractions=(0.02, 0.05), iterate=2, objective="macro")
TRAIN = TrainPlan(
    rank=2, layers=(1,), positions=Positions(1, 1), epochs=3, batch_size=6, accumulate=1, learning_rate=0.02,
    objective="macro",
)  # fmt: skip
METHODS: dict[str, Any] = {"search": (search, SEARCH), "prune": (prune, PRUNE), "train": (train, TRAIN)}


@pytest.fixture
def by_size(facts: Path) -> Task:
    """The small facts in two categories: cities with a number up to six, and twice as many others."""
    data = facts.with_name("facts.jsonl")
    rows = [json.loads(line) for line in data.read_text().splitlines()]
    sized = [{**row, "size": "small" if int(re.sub(r"\D", "", row["subject"])) < 7 else "large"} for row in rows]
    data.write_text("\n".join(map(json.dumps, sized)))
    facts.write_text(facts.read_text() + "category: size\n")
    return load_task(facts)


def macro_by_hand(found: Evaluation, categories: list[str | None]) -> float:
    assert found.correct is not None
    shares = []
    for category in set(categories):
        own = [bool(right) for right, name in zip(found.correct, categories, strict=True) if name == category]
        shares.append(sum(own) / len(own))
    return sum(shares) / len(shares)


def offered(found: Any) -> list[Trial]:
    """Return what a run chose from: all on select, but of a pruning's round only the step with the lowest loss."""
    trials = [trial for trial in found.trials if trial.key.split == "select" and trial.key.examples == 24]
    if found.result.command != "prune":
        return trials
    rounds = {trial.key.round for trial in trials}
    return [min((t for t in trials if t.key.round == number), key=lambda trial: trial.loss) for number in rounds]


def test_a_search_takes_the_edit_with_the_best_macro_average_where_another_has_the_lower_loss(
    answering: Callable[..., Any], small_tokenizer: Any, by_size: Task
) -> None:
    found = search(answering(), small_tokenizer, by_size, SEARCH)
    plain = search(answering(), small_tokenizer, by_size, dataclasses.replace(SEARCH, objective="average"))
    chosen, other = (each.result.edited["select"] for each in (found, plain))
    assert chosen.macro == max(trial.macro or 0 for trial in offered(found))
    assert other.accuracy == max(trial.accuracy or 0 for trial in offered(plain))
    assert (chosen.macro or 0) > (other.macro or 0)
    assert (chosen.accuracy, -chosen.loss) < (other.accuracy, -other.loss)


@pytest.mark.parametrize("method", METHODS)
def test_each_method_chooses_by_the_macro_average_and_tells_it(
    answering: Callable[..., Any], small_tokenizer: Any, by_size: Task, tmp_path: Path, method: str
) -> None:
    run, plan = METHODS[method]
    found = run(answering(), small_tokenizer, by_size, plan, RunOptions(out=tmp_path / "run"))
    assert all(trial.merit[0] == trial.macro for trial in found.trials)
    best = max(offered(found), key=lambda trial: (trial.macro, -trial.loss))
    assert found.result.edited["select"].macro == best.macro
    sizes = [example.category for example in by_size.examples("test")]
    on_test = evaluated(answering(), small_tokenizer, found.recipe, by_size)
    assert found.result.edited["test"].macro == pytest.approx(macro_by_hand(on_test, sizes))
    written = json.loads((tmp_path / "run" / "result.json").read_text())
    assert written["edited"]["test"]["macro"] == found.result.edited["test"].macro
    assert json.loads((tmp_path / "run" / "config.json").read_text())["plan"]["objective"] == "macro"


@pytest.mark.parametrize("method", METHODS)
def test_a_task_without_categories_has_no_macro_average_to_choose_by(
    answering: Callable[..., Any], small_tokenizer: Any, task: Task, tmp_path: Path, method: str
) -> None:
    run, plan = METHODS[method]
    with pytest.raises(UsageError, match="small-facts has no categories in its select split, which objective 'macro'"):
        run(answering(), small_tokenizer, task, plan, RunOptions(out=tmp_path / "run"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("plan", [SearchPlan, PrunePlan, TrainPlan])
def test_a_plan_names_its_objective_where_older_runs_had_another(plan: Any) -> None:
    assert "objective" not in plan().to_json()
    assert plan(objective="macro").to_json() == {**plan().to_json(), "objective": "macro"}
    with pytest.raises(UsageError, match="objective is one of average, macro, not 'best'"):
        plan(objective="best")


def test_a_search_that_was_interrupted_goes_on_by_the_same_objective_and_by_no_other(
    answering: Callable[..., Any],
    small_tokenizer: Any,
    by_size: Task,
    tmp_path: Path,
    finished_trials: Callable[..., list[Trial]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = search(answering(), small_tokenizer, by_size, SEARCH)
    options = RunOptions(out=tmp_path / "run")
    with monkeypatch.context():
        finished_trials(5)
        with pytest.raises(KeyboardInterrupt):
            search(answering(), small_tokenizer, by_size, SEARCH, options)
    finished_trials()
    options = dataclasses.replace(options, resume=True)
    with pytest.raises(RunError, match="objective"):
        search(answering(), small_tokenizer, by_size, dataclasses.replace(SEARCH, objective="average"), options)
    found = search(answering(), small_tokenizer, by_size, SEARCH, options)
    assert figures_of(found) == figures_of(whole)
    assert trials_of(found) == trials_of(whole)
