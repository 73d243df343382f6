"""Figures: what a result file holds, read back, and what a choice maximises."""

from typing import Any, get_args

import pytest

from strop.statistics import Figures, ObjectiveName

PLAIN = Figures(accuracy=0.5, loss=2.0, count=10)


@pytest.mark.parametrize("figures", [PLAIN, Figures(0.5, 2.0, 10, macro=0.25), Figures(None, 2.0, 10, perplexity=7.4)])
def test_figures_come_back_from_json(figures: Figures) -> None:
    assert Figures.from_json(figures.to_json()) == figures


def test_only_a_task_with_categories_writes_a_macro_average() -> None:
    assert PLAIN.to_json() == {"accuracy": 0.5, "loss": 2.0, "count": 10}
    assert Figures(0.5, 2.0, 10, macro=0.25).to_json()["macro"] == 0.25


@pytest.mark.parametrize("objective", get_args(ObjectiveName))
def test_each_objective_maximises_its_own_average_and_then_minus_the_loss(objective: Any) -> None:
    often, evenly = Figures(0.75, 2.0, 10, macro=0.25), Figures(0.5, 3.0, 10, macro=0.5)
    better, worse = (often, evenly) if objective == "average" else (evenly, often)
    assert better.merit_by(objective) > worse.merit_by(objective)
    assert Figures(0.5, 1.0, 10, macro=0.5).merit_by(objective) > evenly.merit_by(objective)


def test_a_macro_average_is_told_from_a_classifiers_metric() -> None:
    judged = Figures(0.75, 2.0, 10, metric=("f1", 0.625), macro=0.25)
    assert (judged.merit, judged.merit_by("macro")) == ((0.625, -2.0), (0.25, -2.0))
