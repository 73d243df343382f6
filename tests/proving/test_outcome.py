"""What a run found can be kept, shown in a notebook and read as a table; so can its evaluations and comparisons."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import strop
from strop import RunOptions, SearchPlan
from strop.errors import UsageError
from strop.proving import RunOutcome
from strop.recipe import Recipe
from strop.runs import RunResult
from strop.tasks import Task


@pytest.fixture
def found(
    answering: Callable[..., Any], small_tokenizer: Any, task: Task, request: pytest.FixtureRequest
) -> RunOutcome:
    plan = SearchPlan(strategy="exhaustive", layers=(1,), rank_fractions=(0.5,), select_limit=6, test_limit=6)
    return strop.search(answering(), small_tokenizer, task, plan, RunOptions(rivals=False))


def test_an_outcome_is_kept_shown_and_read(found: RunOutcome, tmp_path: Path) -> None:
    folder = found.save(tmp_path / "kept")
    assert Recipe.load(folder / "recipe") == found.recipe
    assert RunResult.read(folder / "result.json") == RunResult.from_json(found.result.to_json())
    with pytest.raises(UsageError, match="is not empty"):
        found.save(folder)

    shown = found._repr_html_()
    assert shown.startswith("<table><caption>LlamaForCausalLM on small-facts</caption>")
    assert "held out (test)" in shown
    assert "95 % interval" in shown
    assert "evaluations in" in shown

    frame = found.to_pandas()
    assert len(frame) == len(found.trials)
    assert {"method", "stage", "split", "examples", "layer", "matrix_type", "rank_fraction", "accuracy", "loss"} <= set(
        frame
    )
    assert frame["loss"].tolist() == [trial.loss for trial in found.trials]


def test_a_finished_run_is_read_back_with_all_it_tried(
    answering: Callable[..., Any], small_tokenizer: Any, task: Task, tmp_path: Path
) -> None:
    plan = SearchPlan(strategy="exhaustive", layers=(1,), rank_fractions=(0.5,), select_limit=6, test_limit=6)
    options = RunOptions(out=tmp_path / "run", resume=True, rivals=False)
    found, again = (strop.search(answering(), small_tokenizer, task, plan, options) for _ in range(2))
    assert len(found.trials) > 2
    assert again.trials == found.trials
    (tmp_path / "run" / "study.db").unlink()
    without = strop.search(answering(), small_tokenizer, task, plan, options)
    assert (without.trials, without.result) == ((), again.result)
    assert not (tmp_path / "run" / "study.db").exists()


def test_evaluations_and_comparisons_are_kept_shown_and_read(found: RunOutcome, tmp_path: Path) -> None:
    assert found.test_evaluations is not None
    base, edited = found.test_evaluations
    kept = json.loads(base.save(tmp_path / "base.json").read_text())
    assert (kept["score"], kept["count"], len(kept["examples"])) == ("exact", 6, 6)
    assert kept["examples"][0] == base.of_example(0)
    frame = base.to_pandas()
    assert frame["loss"].tolist() == base.loss.tolist()
    assert frame["correct"].tolist() == base.correct.tolist()  # type: ignore[union-attr]
    assert frame["wanted"].tolist() == list(base.wanted or ())
    assert "<td>examples</td><td>6</td>" in base._repr_html_()

    comparison = strop.compare(base, edited)
    assert json.loads(comparison.save(tmp_path / "c.json").read_text()) == comparison.to_json()
    (row,) = comparison.to_pandas().to_dict("records")
    assert (row["gain"], row["ci95_low"], row["fixed"]) == (comparison.gain, comparison.ci95[0], comparison.fixed)
    assert f"<td>{comparison.gain:+.4f}</td>" in comparison._repr_html_()
