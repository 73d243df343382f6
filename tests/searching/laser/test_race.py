"""A race: what nothing rules out is scored on as many examples as the base, the rest on as few as it takes."""

import dataclasses
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
from tests.fixtures.runs import Notes, figures_of, reduction_of, trials_of

from strop.anatomy import MatrixType
from strop.errors import UsageError
from strop.interventions import RankReduction
from strop.proving import Budget, RunOptions, RunOutcome, Trial
from strop.runs import BudgetUse, Stopwatch
from strop.scoring import Scorer
from strop.searching import LASER_RANK_FRACTIONS, SearchPlan, search
from strop.searching.laser.race import LEVEL
from strop.statistics import Merit
from strop.tasks import Task, load_task

T = MatrixType
RACE = SearchPlan(strategy="race", matrix_types=(T.UP, T.DOWN, T.OUTPUT), rank_fractions=(0.05, 0.3, 0.8))
CANDIDATES = 2 * 3 * 3
SHARES = (24, 48, 96)
Run = Callable[..., RunOutcome]


@pytest.fixture
def many(tmp_path: Path) -> Task:
    """Facts with 96 select examples, of three cities."""
    rows = [
        {"prompt": f"The city of {name}{number} is in", "answer": f" {answer}", "where": name}
        for number in range(40)
        for name, answer in (("Lyon", "France"), ("Curitiba", "Brazil"), ("Paris", "France"))
    ]
    (tmp_path / "many.jsonl").write_text("\n".join(json.dumps(row) for row in rows) + "\n", encoding="utf-8")
    path = tmp_path / "many.yaml"
    path.write_text("name: many\ndata: many.jsonl\nsplits: {train: 0.1, select: 0.8, test: 0.1, seed: 0}\n")
    return load_task(path)


@pytest.fixture
def run(answering: Callable[..., Any], small_tokenizer: Any, many: Task) -> Run:
    """Runs a race, or another plan, without rivals."""

    def go(plan: SearchPlan = RACE, **options: Any) -> RunOutcome:
        return search(answering(num_hidden_layers=2), small_tokenizer, many, plan, RunOptions(rivals=False, **options))

    return go


def on(found: RunOutcome, examples: int) -> dict[RankReduction | None, Trial]:
    """Return the trials of a race on a share, "no edit" by None."""
    return {
        reduction_of(trial): trial
        for trial in found.trials
        if trial.key.method == "rank_reduction" and trial.key.examples == examples
    }


def test_a_race_finds_what_the_whole_sweep_finds_and_reads_less(run: Run) -> None:
    raced, swept = run(), run(dataclasses.replace(RACE, strategy="exhaustive"))
    assert raced.recipe.interventions == swept.recipe.interventions != ()
    assert raced.result.edited["select"].loss == pytest.approx(swept.result.edited["select"].loss, rel=1e-6)
    assert raced.result.edited["select"].accuracy == swept.result.edited["select"].accuracy
    counts = [len(on(raced, examples)) for examples in SHARES]
    assert counts[0] == CANDIDATES + 1  # with "no edit"
    assert counts[0] > counts[1] > counts[2] >= 1
    base, of_test = 1, 2
    passes = sum(count * new / 96 for count, new in zip(counts, (24, 24, 48), strict=True))
    assert raced.result.cost.evaluations == np.ceil(base + passes) + of_test
    assert passes < 0.5 * CANDIDATES
    assert raced.result.cost.tokens < 0.7 * swept.result.cost.tokens


def test_whoever_goes_on_is_not_beaten_and_whoever_is_left_is(run: Run) -> None:
    """The same tests by scipy, pair by pair: there are no groups here."""
    found = run()
    level = LEVEL / (CANDIDATES * (len(SHARES) - 1))
    for examples, following in itertools.pairwise(SHARES):
        trials = on(found, examples)
        for own, trial in trials.items():
            assert trial.each is not None
            beaten = any(
                rival.merit[0] >= trial.merit[0]
                and np.exp(-np.array(rival.each.loss)).mean() >= np.exp(-np.array(trial.each.loss)).mean()
                and scipy.stats.ttest_rel(rival.each.loss, trial.each.loss, alternative="less").pvalue < level
                for other, rival in trials.items()
                if other != own and rival.each is not None
            )
            more = sum(trial.each.correct or ())
            leader = max(trials.values(), key=lambda each: each.merit[0])
            assert leader.each is not None
            gained = [a - b for a, b in zip(leader.each.correct or (), trial.each.correct or (), strict=True)]
            changed = sum(map(abs, gained))
            if sum(leader.each.correct or ()) > more:
                beaten |= float(scipy.stats.binom.sf((changed + sum(gained)) // 2 - 1, changed, 0.5)) < level
            if own is not None or following < 96:  # "no edit" is scored on all from the start
                assert (own not in on(found, following)) == beaten


def test_a_share_holds_the_one_before_and_only_what_is_new_is_read(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    evaluate = Scorer.evaluate

    def counted(self: Scorer, **given: Any) -> Any:
        read.append(self.example_count)
        return evaluate(self, **given)

    monkeypatch.setattr(Scorer, "evaluate", counted)
    found = run()
    counts = [len(on(found, examples)) for examples in SHARES]
    assert read[1:-2] == [24] * counts[0] + [24] * counts[1] + [48] * counts[2]  # behind the base, before the test
    for few, most in itertools.pairwise(SHARES):
        for own, trial in on(found, most).items():
            before = on(found, few)[own].each
            assert before is not None
            assert trial.each is not None
            assert (trial.each.loss[:few], len(trial.each.loss)) == (before.loss, most)
            assert trial.loss == pytest.approx(np.mean(trial.each.loss))
            assert trial.accuracy == np.mean(trial.each.correct or ())


def test_by_default_all_of_lasers_grid_races() -> None:
    assert (SearchPlan(strategy="race").rank_fractions or LASER_RANK_FRACTIONS) == LASER_RANK_FRACTIONS
    assert len(LASER_RANK_FRACTIONS) == 9


@pytest.mark.parametrize("stop", [12, -2])
def test_a_race_that_was_interrupted_goes_on_and_decides_the_same(
    run: Run, gone_on: Callable[..., tuple[RunOutcome, list[Trial]]], stop: int
) -> None:
    whole = run()
    again, _ = gone_on(lambda options: run(out=options.out, resume=options.resume), stop % len(whole.trials))
    assert figures_of(again) == figures_of(whole)
    assert trials_of(again) == trials_of(whole)
    assert again.recipe == whole.recipe


@pytest.mark.parametrize("limit", [5, 8])
def test_a_budget_holds_the_race_and_the_held_out_measurement(run: Run, limit: int) -> None:
    notes = Notes()
    found = run(budget=Budget(evaluations=limit), progress=notes)
    assert found.result.cost.evaluations <= limit
    assert found.result.budget == BudgetUse(None, limit, spent=True)
    assert "drawn at random" in " ".join(notes.lines)
    ended = on(found, 96)
    best: Merit = max([found.trials[0].merit, *(trial.merit for trial in ended.values())])
    assert (found.result.edited["select"].accuracy, -found.result.edited["select"].loss) == best


def test_a_budget_that_holds_nothing_but_the_measurement_leaves_the_model_as_it_is(run: Run) -> None:
    notes = Notes()
    found = run(budget=Budget(evaluations=3), progress=notes)
    assert [trial.key.method for trial in found.trials] == ["base"]
    assert found.recipe.interventions == ()
    assert any("reaches for 0 of 18 candidates" in line for line in notes.lines)


def test_a_larger_budget_goes_on_with_a_race_that_was_cut_short(
    run: Run, tmp_path: Path, finished_trials: Callable[..., list[Trial]]
) -> None:
    finished = finished_trials()
    first = run(out=tmp_path / "run", budget=Budget(evaluations=6))
    again = run(out=tmp_path / "run", resume=True, budget=Budget(evaluations=6))
    assert again.result == first.result
    more = run(out=tmp_path / "run", resume=True)
    assert len({trial.key for trial in finished}) == len(finished) == len(more.trials) > len(first.trials)
    whole = run()
    assert more.recipe == whole.recipe
    assert on(more, 24).keys() == on(whole, 24).keys()
    assert on(more, 96).keys() >= on(whole, 96).keys()


def test_seconds_are_kept_with_the_held_out_measurement(
    run: Run, monkeypatch: pytest.MonkeyPatch, finished_trials: Callable[..., list[Trial]]
) -> None:
    """A clock that goes on by a hundredth of a second for each example that is read."""
    read = [0]
    evaluate = Scorer.evaluate

    def counted(self: Scorer, **given: Any) -> Any:
        read[0] += self.example_count
        return evaluate(self, **given)

    monkeypatch.setattr(Scorer, "evaluate", counted)
    monkeypatch.setattr(Stopwatch, "seconds", property(lambda _: read[0] / 100))
    free = run()
    needed, read[0] = read[0] / 100, 0
    notes = Notes()
    found = run(budget=Budget(seconds=needed / 2), progress=notes)
    assert read[0] / 100 <= needed / 2
    assert found.result.budget == BudgetUse(needed / 2, None, spent=True)
    assert on(found, 96)
    read[0] = 0
    roomy = run(budget=Budget(seconds=4 * needed))
    assert roomy.recipe.interventions == free.recipe.interventions
    assert roomy.result.budget == BudgetUse(4 * needed, None, spent=False)


def test_where_trials_take_longer_than_was_thought_the_leader_alone_goes_on(
    run: Run, monkeypatch: pytest.MonkeyPatch, finished_trials: Callable[..., list[Trial]]
) -> None:
    """A clock by which each trial takes a second, and reading without one takes nothing."""
    finished, notes = finished_trials(), Notes()
    monkeypatch.setattr(Stopwatch, "seconds", property(lambda _: float(len(finished))))
    found = run(budget=Budget(seconds=12.5), progress=notes)
    assert any("the time is up, and" in line and "it alone goes on" in line for line in notes.lines)
    assert len(on(found, 24)) == 12
    assert len(on(found, 48)) <= 1
    assert found.result.budget == BudgetUse(12.5, None, spent=True)


def test_where_edits_only_harm_no_edit_wins_before_any_is_scored_on_all(run: Run) -> None:
    found = run(dataclasses.replace(RACE, rank_fractions=(0.0,), matrix_types=(T.VALUE, T.OUTPUT), layers=(0,)))
    assert found.recipe.interventions == ()
    assert [len(on(found, examples)) for examples in SHARES] == [3, 0, 0]


def test_several_edits_race_one_after_the_other(run: Run) -> None:
    plan = dataclasses.replace(RACE, compose="greedy", max_edits=2, matrix_types=(T.UP, T.OUTPUT))
    found = run(plan)
    rounds = {trial.key.round: trial for trial in found.trials if trial.key.examples == 24 and not trial.key.candidate}
    assert rounds.keys() == {1, 2}  # "no edit" races in each
    first = found.recipe.interventions[0]
    won = next(
        own for own in found.trials if own.key.examples == 24 and own.key.round == 1 and reduction_of(own) == first
    )
    assert rounds[2].loss == pytest.approx(won.loss, rel=1e-5)  # on the model with the first edit
    assert rounds[1].loss != rounds[2].loss
    parted = run(plan, budget=Budget(evaluations=16))
    assert parted.result.cost.evaluations <= 16


def test_a_classifier_races_too(
    tiny_classifier: Callable[..., Any], small_tokenizer: Any, write_cities: Callable[..., Path], tmp_path: Path
) -> None:
    task = load_task(write_cities(tmp_path, splits={"train": 0.1, "select": 0.6, "test": 0.3}, metric="f1"))
    plan = dataclasses.replace(RACE, layers=(0, 1), rank_fractions=(0.0, 0.3), matrix_types=(T.UP, T.VALUE))
    model = tiny_classifier("roberta")
    raced, swept = (
        search(model, small_tokenizer, task, dataclasses.replace(plan, strategy=strategy), RunOptions(rivals=False))
        for strategy in ("race", "exhaustive")
    )
    assert raced.recipe.interventions == swept.recipe.interventions
    for own, trial in on(raced, 72).items():
        other = on(swept, 72)[own]
        assert trial.metric == other.metric
        assert trial.loss == pytest.approx(other.loss, rel=1e-5)


def test_what_only_ranks_does_not_go_with_a_race() -> None:
    with pytest.raises(UsageError, match="price_weight goes with strategy 'gradient': 'race' asks no gradient"):
        SearchPlan(strategy="race", price_weight=1.0)


def test_a_race_has_no_work_for_several_workers(
    answering: Callable[..., Any], small_tokenizer: Any, many: Task, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="has no work for several workers: leave workers out"):
        search(answering(), small_tokenizer, many, RACE, RunOptions(out=tmp_path / "run", workers=2))
    assert not (tmp_path / "run").exists()
