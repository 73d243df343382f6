"""What a person reads at the end: percent and points for accuracy, nats for loss."""

import dataclasses
import io
from typing import Any

import pytest
import rich.console

from strop.report import (
    Table,
    budget_lines,
    gain_sentence,
    guard_lines,
    intervention_lines,
    percent,
    run_parts,
    run_table,
    signed_points,
    to_markdown,
    to_rich,
)
from strop.runs import BaseModel, BudgetUse, Cost, GuardReading, RunResult, TaskUsed
from strop.statistics import Comparison, Figures, spell_p_value

COMPARISON = Comparison(gain=0.0334, ci95=(-0.004, 0.07), p_value=1.2e-9, fixed=400, broken=80)


def result(*, accuracy: bool = True, **fields: Any) -> RunResult:
    def figures(share: float, loss: float, count: int) -> Figures:
        return Figures(share if accuracy else None, loss, count)

    return RunResult(
        command="search",
        seed=0,
        base_model=BaseModel("tiny", "0"),
        task=TaskUsed("facts", {"select": 1000, "test": 4000}),
        base={"select": figures(0.05, 6.54321, 1000), "test": figures(0.0666, 6.6, 4000)},
        edited={"select": figures(0.125, 5.0, 1000), "test": figures(0.1, 5.5, 4000)},
        comparison={"test": COMPARISON},
        **{"interventions": (), "cost": Cost(60.0, 41, 100_000, 10**9), "versions": {}, **fields},
    )


def test_the_table_shows_accuracy_as_percent_and_loss_as_it_is() -> None:
    table = run_table(result())
    assert table.title == "tiny on facts"
    assert table.columns == ("examples", "count", "accuracy before", "after", "loss before", "after")
    assert table.rows == (
        ("chosen by (select)", "1000", "5.0 %", "12.5 %", "6.543", "5.000"),
        ("held out (test)", "4000", "6.7 %", "10.0 %", "6.600", "5.500"),
    )


def test_the_table_of_a_task_without_right_and_wrong_has_no_accuracy() -> None:
    table = run_table(result(accuracy=False))
    assert table.columns == ("examples", "count", "loss before", "after")
    assert table.rows[1] == ("held out (test)", "4000", "6.600", "5.500")
    assert all(len(row) == len(table.columns) for row in table.rows)


def test_the_table_of_a_task_with_categories_has_macro_averages() -> None:
    splits = {split: Figures(0.05, 6.5, 1000, macro=macro) for split, macro in (("select", 0.04), ("test", 0.031))}
    edited = {split: Figures(0.1, 5.5, 1000, macro=0.02) for split in splits}
    table = run_table(dataclasses.replace(result(), base=splits, edited=edited))
    assert table.columns[2:6] == ("accuracy before", "after", "macro before", "after")
    assert [row[4:6] for row in table.rows] == [("4.0 %", "2.0 %"), ("3.1 %", "2.0 %")]
    assert all(len(row) == len(table.columns) for row in table.rows)


def test_the_gain_in_accuracy_is_in_points_with_its_interval() -> None:
    sentence = gain_sentence(COMPARISON, in_accuracy=True)
    assert "+3.3 points (95 % interval -0.4 to +7.0" in sentence
    assert "400 fixed, 80 broken, p = 1.2e-09" in sentence
    assert "nats" not in sentence


def test_the_gain_over_a_recipe_to_begin_with_is_called_so() -> None:
    sentence = gain_sentence(COMPARISON, in_accuracy=True, held_out=True, over_start=True)
    assert sentence.startswith("Held-out gain over the recipe it began with: +3.3 points")
    assert gain_sentence(COMPARISON, in_accuracy=True, held_out=True).startswith("Held-out gain: +3.3 points")


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0.001, 0.07, ""),
        (-0.004, 0.07, "No gain is shown: the interval holds 0."),
        (0.0, 0.07, "No gain is shown: the interval holds 0."),
        (-0.07, -0.001, "It is worse than before."),
        (0.0, 0.0, ""),
    ],
)
def test_a_gain_that_may_be_chance_is_not_claimed(low: float, high: float, said: str) -> None:
    sentence = gain_sentence(dataclasses.replace(COMPARISON, ci95=(low, high)), in_accuracy=True)
    assert sentence.partition("). ")[2] == said


def test_the_gain_in_loss_is_in_nats() -> None:
    sentence = gain_sentence(COMPARISON, in_accuracy=False)
    assert "+0.0334 nats per token (95 % interval -0.0040 to +0.0700" in sentence
    assert "points" not in sentence


def test_each_intervention_has_a_line_and_none_is_said() -> None:
    entry = {"method": "rank_reduction", "layer": 28, "matrix_type": "up", "rank_fraction": 0.01, "rank": 5}
    shown = result(interventions=(entry,), edits=("layer 28 up: rank reduction to rank 5 (1.0 % kept)",))
    assert intervention_lines(shown) == list(shown.edits)
    assert intervention_lines(dataclasses.replace(shown, edits=())) == ["layer 28 up: rank_reduction"]
    assert intervention_lines(result()) == ["No edit helped on the select split; the recipe is empty."]


def test_each_guard_has_a_line_in_the_unit_of_its_bound() -> None:
    perplexity = GuardReading("notes.txt", "perplexity", 20.0, 20.3, harm=0.015, bound=0.02, bound_unit="share")
    accuracy = GuardReading("boolq", "accuracy", 0.6, 0.61, harm=-0.01, bound=0.01, bound_unit="points")
    assert guard_lines(result(guards=(perplexity, accuracy))) == [
        "Guard notes.txt: perplexity 20 -> 20.3 (harm +1.50 %, at most 2 % allowed).",
        "Guard boolq: accuracy 60.0 % -> 61.0 % (harm -1.00 points, at most 1 allowed).",
    ]
    assert guard_lines(result()) == []


def test_figures_are_spelt_with_sign_and_unit() -> None:
    assert (percent(None), percent(0), percent(1), percent(0.99999)) == ("–", "0.0 %", "100.0 %", "100.0 %")
    assert (signed_points(0), signed_points(-1e-9), signed_points(-0.0123)) == ("+0.0", "+0.0", "-1.2")
    assert (signed_points(0.0004), signed_points(-0.00002)) == ("+0.04", "-0.002")  # not 0, so not spelt as if it were
    assert [spell_p_value(p) for p in (1.0, 0.001, 0.00099)] == ["p = 1.000", "p = 0.001", "p = 9.9e-04"]
    assert [spell_p_value(p) for p in (0.05, 0.0499, 0.04949)] == ["p = 0.050", "p < 0.050", "p = 0.049"]


TRICKY = Table("[title]", ("[name]", "figure"), (("[bold]layer[/bold]", "1"), ("a|b", "[/]")))


def test_a_terminal_table_shows_every_cell_as_it_is() -> None:
    console = rich.console.Console(width=60, record=True, file=io.StringIO())
    console.print(to_rich(TRICKY))
    shown = console.export_text()
    for cell in ("[title]", "[name]", "figure", "[bold]layer[/bold]", "a|b", "[/]"):
        assert cell in shown


def test_a_bar_in_a_cell_adds_no_column_to_markdown() -> None:
    assert to_markdown(TRICKY).splitlines()[-1] == "| a\\|b | [/] |"


def test_a_choice_its_budget_ended_is_told_so_and_nothing_is_said_of_edits_that_were_never_tried() -> None:
    spent = result(budget=BudgetUse(seconds=None, evaluations=1, spent=True))
    assert budget_lines(spent) == [
        "The budget ended the choice; repeat the command with --resume and a larger one to go on."
    ]
    assert intervention_lines(spent) == [
        "The budget was spent before an edit was found that helps; the recipe is empty."
    ]
    assert (
        budget_lines(result(budget=BudgetUse(seconds=None, evaluations=9, spent=False))) == budget_lines(result()) == []
    )


def test_a_run_on_text_ends_with_its_perplexities_and_no_other_run_does() -> None:
    before, after = (
        Figures(None, loss, 4000, perplexity=perplexity) for loss, perplexity in ((2.9, 20.0), (2.8, 18.5))
    )
    on_text = dataclasses.replace(
        result(accuracy=False), base={"select": before, "test": before}, edited={"select": before, "test": after}
    )
    line = "Perplexity of what is held out: 20.000 -> 18.500 (× 0.9250)."
    assert [part for part in run_parts(on_text) if "Perplexity" in str(part)] == [line]
    assert not [part for part in run_parts(result()) if "Perplexity" in str(part)]
