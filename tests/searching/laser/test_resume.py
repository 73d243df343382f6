"""A search that was interrupted, moved or repeated: the same answer, and no trial twice."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.fixtures.runs import figures_of, trials_of

import strop
from strop.anatomy import MatrixType
from strop.linalg import DecompositionCache
from strop.proving import RunOptions, RunOutcome, Trial
from strop.scoring import Scorer
from strop.searching import SearchPlan
from strop.searching.laser import search
from strop.tasks import Task

T = MatrixType
QUICK = SearchPlan(rank_fractions=(0.1, 0.5), gradient_examples=8, top_matrices=4, finalists=3)
ALL = dataclasses.replace(QUICK, strategy="exhaustive")


def test_the_same_seed_finds_the_same_twice(
    answering: Callable[..., Any], small_tokenizer: Any, task: Task, tmp_path: Path
) -> None:
    plan = dataclasses.replace(QUICK, seed=3, select_limit=20, test_limit=15)
    one, two = (
        search(answering(), small_tokenizer, task, plan, options=RunOptions(out=tmp_path / name))
        for name in ("one", "two")
    )
    assert figures_of(one) == figures_of(two)
    assert one.result.task.counts == {"select": 20, "test": 15}
    for name in ("README.md", "recipe.json"):
        assert (tmp_path / "one" / "recipe" / name).read_bytes() == (tmp_path / "two" / "recipe" / name).read_bytes()
    logs = [(tmp_path / name / "log.txt").read_text().splitlines() for name in ("one", "two")]
    assert [line.split(" ", 1)[1] for line in logs[0]] == [line.split(" ", 1)[1] for line in logs[1]]
    ids = {json.loads((tmp_path / name / "config.json").read_text())["run"] for name in ("one", "two")}
    assert len(ids) == 2  # a run's name is its own


@pytest.mark.first(2)
@pytest.mark.parametrize(("strategy", "stop"), [("gradient", 2), ("gradient", 9), ("exhaustive", 12), ("data-free", 5)])
def test_a_search_that_was_interrupted_goes_on_and_repeats_nothing(
    answering: Callable[..., Any],
    small_tokenizer: Any,
    task: Task,
    tmp_path: Path,
    gone_on: Callable[..., tuple[RunOutcome, list[Trial]]],
    strategy: Any,
    stop: int,
) -> None:
    plan = SearchPlan(
        strategy=strategy, compose="greedy", max_edits=2, layers=(2,), rank_fractions=(0.0, 0.5), gradient_examples=8,
        matrix_types=(T.KEY, T.VALUE, T.UP, T.DOWN), finalists=3,
    )  # fmt: skip
    again, finished = gone_on(lambda options: search(answering(), small_tokenizer, task, plan, options), stop)
    whole = search(
        answering(),
        small_tokenizer,
        task,
        plan,
        options=RunOptions(decompositions=DecompositionCache(tmp_path / "svd")),
    )
    assert figures_of(again) == figures_of(whole)
    assert trials_of(again) == trials_of(whole)
    assert again.recipe == whole.recipe
    assert again.result.cost.wall_seconds >= finished[stop - 1].elapsed_seconds


def test_resuming_a_finished_run_gives_its_result_at_once(
    answering: Callable[..., Any], small_tokenizer: Any, task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = answering()
    found = search(model, small_tokenizer, task, QUICK, options=RunOptions(out=tmp_path / "run"))

    def never(self: Scorer, **_: Any) -> Any:
        raise AssertionError("nothing is to be scored again")

    monkeypatch.setattr(Scorer, "evaluate", never)
    again = search(model, small_tokenizer, task, QUICK, options=RunOptions(out=tmp_path / "run", resume=True))
    assert again.result == found.result
    assert again.recipe == found.recipe


def test_resuming_with_other_settings_and_starting_in_a_used_folder_are_refused(
    answering: Callable[..., Any], small_tokenizer: Any, task: Task, tmp_path: Path
) -> None:
    model = answering()
    search(model, small_tokenizer, task, QUICK, options=RunOptions(out=tmp_path / "run"))
    with pytest.raises(strop.StropError, match=r"seed = 0, and now it is 1: resume with the same settings"):
        search(
            model,
            small_tokenizer,
            task,
            dataclasses.replace(QUICK, seed=1),
            options=RunOptions(out=tmp_path / "run", resume=True),
        )
    with pytest.raises(strop.StropError, match="began with .*fingerprint"):
        search(
            answering("llama", num_hidden_layers=2),
            small_tokenizer,
            task,
            QUICK,
            options=RunOptions(out=tmp_path / "run", resume=True),
        )
    with pytest.raises(strop.StropError, match="holds a finished run: go on with it by --resume"):
        search(model, small_tokenizer, task, QUICK, options=RunOptions(out=tmp_path / "run"))


def test_a_run_whose_folder_was_renamed_repeats_no_trial(
    answering: Callable[..., Any],
    small_tokenizer: Any,
    task: Task,
    tmp_path: Path,
    finished_trials: Callable[..., list[Trial]],
) -> None:
    model = answering()
    first = search(model, small_tokenizer, task, QUICK, options=RunOptions(out=tmp_path / "run"))
    (tmp_path / "run" / "result.json").unlink()
    (tmp_path / "run").rename(tmp_path / "moved")
    finished = finished_trials()
    again = search(model, small_tokenizer, task, QUICK, options=RunOptions(out=tmp_path / "moved", resume=True))
    assert finished == []
    assert again.recipe == first.recipe
    assert again.trials == first.trials


def test_a_run_whose_trials_are_kept_elsewhere_goes_on_from_there_and_apart_from_others(
    answering: Callable[..., Any],
    small_tokenizer: Any,
    task: Task,
    tmp_path: Path,
    finished_trials: Callable[..., list[Trial]],
) -> None:
    storage = f"sqlite:///{tmp_path / 'shared.db'}"
    before = search(answering(), small_tokenizer, task, QUICK, options=RunOptions(out=tmp_path / "a", storage=storage))
    assert not (tmp_path / "a" / "study.db").exists()
    finished = finished_trials(5)
    with pytest.raises(KeyboardInterrupt):
        search(answering(), small_tokenizer, task, QUICK, options=RunOptions(out=tmp_path / "b", storage=storage))
    with pytest.raises(strop.StropError, match="began with storage = .*shared.db.* and now it is None"):
        search(answering(), small_tokenizer, task, QUICK, options=RunOptions(out=tmp_path / "b", resume=True))
    after = search(
        answering(), small_tokenizer, task, QUICK, options=RunOptions(out=tmp_path / "b", storage=storage, resume=True)
    )
    assert len({trial.key for trial in finished}) == len(finished) == len(after.trials)
    assert trials_of(after) == trials_of(before)


def test_a_storage_that_cannot_be_opened_leaves_no_run_behind(
    answering: Callable[..., Any], small_tokenizer: Any, task: Task, tmp_path: Path
) -> None:
    with pytest.raises(strop.StropError, match="cannot be opened"):
        search(
            answering(),
            small_tokenizer,
            task,
            QUICK,
            options=RunOptions(out=tmp_path / "run", storage=f"sqlite:///{tmp_path}/no/such/x.db"),
        )
    assert not (tmp_path / "run").exists()
