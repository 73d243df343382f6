"""Trials as values: one text per key, everything comes back as it was written."""

import copy
import json
import math
import pickle

import optuna
import pytest

from strop.errors import UsageError
from strop.proving import CandidateSpace, Trial, TrialKey
from strop.statistics import Figures, ObjectiveName

KEY = TrialKey("cut", "search", 1, "select", 24, {"layer": 2, "rank_fraction": 0.25, "matrix_type": "up"})
SPACE: CandidateSpace[tuple[int, float]] = CandidateSpace(
    "cut",
    {
        "layer": optuna.distributions.IntDistribution(0, 9),
        "rank_fraction": optuna.distributions.FloatDistribution(0, 1),
    },
    lambda pair: {"layer": pair[0], "rank_fraction": pair[1]},
    lambda settings: (settings["layer"], settings["rank_fraction"]),
)


def key(candidate: tuple[int, float] | None) -> TrialKey:
    return SPACE.key(candidate, stage="search", round=1, split="select", examples=24)


def test_keys_are_equal_whatever_the_order_and_the_spelling_of_their_settings() -> None:
    one = TrialKey("cut", "search", 1, "select", 24, {"layer": 2, "rank_fraction": 1.0})
    other = TrialKey("cut", "search", 1, "select", 24, {"rank_fraction": 1, "layer": 2})
    assert one == other
    assert one.text == other.text
    assert len({one, other}) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"method": "prune"},
        {"stage": "screen"},
        {"round": 2},
        {"split": "train"},
        {"examples": 6},
        {"candidate": {}},
        {"candidate": {"layer": 3, "rank_fraction": 0.25, "matrix_type": "up"}},
    ],
)
def test_keys_that_differ_in_anything_differ(change: dict[str, object]) -> None:
    fields = {
        "method": "cut", "stage": "search", "round": 1, "split": "select", "examples": 24, "candidate": KEY.candidate,
    }  # fmt: skip
    assert TrialKey(**fields) == KEY  # type: ignore[arg-type]
    assert TrialKey(**{**fields, **change}) != KEY  # type: ignore[arg-type]


def test_a_key_comes_back_from_its_text_from_a_copy_and_from_another_process() -> None:
    for again in (TrialKey.read(KEY.text), copy.deepcopy(KEY), pickle.loads(pickle.dumps(KEY))):
        assert again == KEY
        assert again.candidate == KEY.candidate


def test_a_key_says_what_its_candidate_stands_on_in_whatever_order_and_nothing_where_that_is_nothing() -> None:
    lower, upper = (1, 0.5), (3, 1.0)
    one, other = (
        SPACE.key((2, 0.25), stage="search", round=3, split="select", examples=24, below=below)
        for below in ([lower, upper], [upper, lower])
    )
    assert one == other
    assert one.text.endswith(
        '"below":[{"layer":1,"rank_fraction":0.5},{"layer":3,"rank_fraction":1}],"candidate":{"layer":2,"rank_fraction":0.25}}'
    )
    assert one.alike == other.alike != KEY.alike  # what stands on other edits is other work
    assert TrialKey.read(one.text) == one == pickle.loads(pickle.dumps(one))
    assert "below" not in KEY.text
    assert len({one, *one.other_orders()}) == 3
    assert {frozenset(str(dict(each)) for each in (key.candidate, *key.below)) for key in one.other_orders()} == {
        frozenset(str(dict(each)) for each in (one.candidate, *one.below))
    }
    assert one in {again for key in one.other_orders() for again in key.other_orders()}
    with pytest.raises(UsageError, match="setting layer of a candidate must be text or a finite number"):
        TrialKey("cut", "search", 2, "select", 24, {"layer": 1}, [{"layer": math.nan}])


def test_a_key_cannot_be_changed_through_its_settings() -> None:
    settings: dict[str, str | int | float] = {"layer": 2}
    kept = TrialKey("cut", "search", 1, "select", 24, settings)
    settings["layer"] = 3
    assert kept.candidate == {"layer": 2}
    with pytest.raises(TypeError):
        kept.candidate["layer"] = 3  # type: ignore[index]


@pytest.mark.parametrize("value", [math.nan, math.inf, True, None, [1]])
def test_a_setting_that_is_no_text_and_no_finite_number_is_refused(value: object) -> None:
    with pytest.raises(UsageError, match="setting layer of a candidate must be text or a finite number"):
        TrialKey("cut", "search", 1, "select", 24, {"layer": value})  # type: ignore[dict-item]


def test_counts_out_of_range_are_refused() -> None:
    with pytest.raises(UsageError, match="round -1"):
        TrialKey("cut", "search", -1, "select", 24)
    with pytest.raises(UsageError, match="0 examples"):
        TrialKey("cut", "search", 1, "select", 0)


@pytest.mark.parametrize("candidate", [None, (2, 0.25), (0, 1.0), (9, 0.0)])
def test_a_candidate_comes_back_from_its_key_and_its_text(candidate: tuple[int, float] | None) -> None:
    again = SPACE.candidate(TrialKey.read(key(candidate).text))
    assert again == candidate
    assert again is None or isinstance(again[1], float)


def test_parameters_carry_the_name_of_their_method() -> None:
    assert SPACE.parameters(key((2, 0.25))) == {"cut.layer": 2, "cut.rank_fraction": 0.25}
    assert set(SPACE.parameter_distributions(key((2, 0.25)))) == {"cut.layer", "cut.rank_fraction"}
    with pytest.raises(UsageError, match="cut has no setting 'matrix_type'"):
        SPACE.parameter_distributions(KEY)


def test_a_trial_comes_back_from_its_scores() -> None:
    for trial in (
        Trial(KEY, 0.5, 1.25, elapsed_seconds=3.5),
        Trial(KEY, None, 2.0),
        Trial(KEY, 0.5, 1.25, metric=("f1", 0.75)),
    ):
        assert Trial.read(KEY, trial.scores()) == trial


def test_accuracy_counts_first_and_then_the_lower_loss_and_a_metric_in_its_place() -> None:
    worst, third, second, best = (
        Trial(KEY, 0.5, math.nan),
        Trial(KEY, 0.5, 9.0),
        Trial(KEY, 0.5, 1.0),
        Trial(KEY, 0.6, 9.0),
    )
    assert sorted([best, second, worst, third], key=lambda trial: trial.merit) == [worst, third, second, best]
    assert Trial(KEY, None, 2.0).merit > Trial(KEY, None, 3.0).merit
    assert Trial(KEY, 0.5, 2.0, ("f1", 0.9)).merit > Trial(KEY, 0.6, 1.0, ("f1", 0.8)).merit


@pytest.mark.parametrize("macro", [None, 0.25])
def test_a_trial_comes_back_with_its_macro_average_and_what_its_run_maximises(macro: float | None) -> None:
    objective: ObjectiveName = "average" if macro is None else "macro"
    trial = Trial.of(KEY, Figures(0.5, 2.0, 24, macro=macro), elapsed_seconds=1.5, objective=objective)
    kept = json.loads(json.dumps(trial.scores()))
    assert Trial.read(KEY, kept) == trial
    assert trial.figures.macro == macro
    assert trial.merit == (0.5 if macro is None else macro, -2.0)


def test_scores_of_a_run_without_categories_are_those_older_versions_read_and_wrote() -> None:
    scores = {"accuracy": 0.5, "loss": 2.0, "metric": None, "elapsed_seconds": 1.5}
    assert Trial.of(KEY, Figures(0.5, 2.0, 24), elapsed_seconds=1.5).scores() == scores
    assert Trial.read(KEY, scores).merit == (0.5, -2.0)
