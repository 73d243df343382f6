"""A run over examples of several kinds says how its gain is spread: in its result, its recipe, its card and on a terminal."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from strop.proving import RunOptions
from strop.runs import RunResult
from strop.scoring import Scorer, spread
from strop.searching import SearchPlan, search
from strop.tasks import Task

PLAN = SearchPlan(rank_fractions=(0.1, 0.5), gradient_examples=8, top_matrices=3, finalists=2)


@pytest.fixture
def in_two_kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Call every other example even."""
    real = Scorer.evaluate

    def with_categories(self: Scorer, **arguments: Any) -> Any:
        kinds = tuple("even" if index % 2 == 0 else "odd" for index in range(self.example_count))
        return dataclasses.replace(real(self, **arguments), categories=kinds)

    monkeypatch.setattr(Scorer, "evaluate", with_categories)


def test_a_run_says_how_its_gain_is_spread(
    answering: Callable[..., Any],
    small_tokenizer: Any,
    task: Task,
    in_two_kinds: None,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from strop.cli.console import print_run

    found = search(answering(), small_tokenizer, task, PLAN, RunOptions(out=tmp_path / "run"))
    assert found.test_evaluations is not None
    expected = spread(*found.test_evaluations)
    assert expected is not None
    assert found.result.categories == expected
    assert {each.name for each in expected.categories} == {"even", "odd"}
    assert expected.gain == pytest.approx(found.result.comparison["test"].gain)

    assert f")\n{expected.sentence}\n" in str(found)

    written = RunResult.read(tmp_path / "run" / "result.json")
    assert written.categories == expected
    provenance = json.loads((tmp_path / "run" / "recipe" / "recipe.json").read_text())["provenance"]
    assert provenance["categories"] == expected.macro_to_json()
    assert expected.sentence in (tmp_path / "run" / "recipe" / "README.md").read_text(encoding="utf-8")

    print_run(written)
    shown = " ".join(capsys.readouterr().out.split())
    assert "average │ 24" in shown
    assert expected.sentence in shown


def test_a_run_over_examples_of_no_kind_says_nothing_of_a_spread(
    answering: Callable[..., Any], small_tokenizer: Any, task: Task, capsys: pytest.CaptureFixture[str]
) -> None:
    from strop.cli.console import print_run

    found = search(answering(), small_tokenizer, task, PLAN)
    assert found.result.categories is None
    assert "categories" not in found.result.to_json()
    assert "categories" not in (found.recipe.provenance or {})
    print_run(found.result)
    assert "categor" not in capsys.readouterr().out
