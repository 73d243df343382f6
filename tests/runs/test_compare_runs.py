"""Two finished runs side by side: what may stand beside what, and which one is better without pairs."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from tests.fixtures.results import LARGE_DRIFT, gain_of, price_of, result_of, write_run

from strop.errors import RunError, UsageError
from strop.runs import BaseModel, Change, RunResult, SideBySide, TaskUsed, compare_runs, finished_run, recipe_folder
from strop.statistics import Comparison, Figures


@pytest.fixture
def compared(tmp_path: Path) -> Any:
    """Write two results and compare their folders, `a` and `b`."""

    def compare(a: RunResult, b: RunResult) -> SideBySide:
        return compare_runs(write_run(tmp_path / "a", a), write_run(tmp_path / "b", b))

    return compare


def test_what_two_runs_measured_is_read_as_they_wrote_it(compared: Any, tmp_path: Path) -> None:
    a, b = result_of(0.1), result_of(0.3, price=price_of(LARGE_DRIFT))
    found = compared(a, b)
    assert (found.task, found.split, found.shots, found.base) == ("small-facts", "test", 0, a.base["test"])
    assert (found.a.folder, found.b.folder) == (str(tmp_path / "a"), str(tmp_path / "b"))
    assert (found.a.figures, found.b.figures) == (a.edited["test"], b.edited["test"])
    assert (found.a.over_base, found.a.cost) == (Change(a.comparison["test"]), a.cost)
    assert found.b.over_base == Change(b.comparison["test"], price=b.price)
    assert found.b_over_a is None


def test_as_json_it_has_the_figures_of_both_under_the_names_of_an_evaluation(compared: Any, tmp_path: Path) -> None:
    content = compared(result_of(0.1), result_of(0.3, price=price_of(LARGE_DRIFT))).to_json()
    assert (content["format"], content["command"], content["paired"], content["better"]) == (1, "compare", False, "b")
    assert content["base_model"] == {"id": "tiny", "fingerprint": "f" * 32}
    assert content["task"] == {"name": "small-facts", "split": "test"}
    assert content["folders"] == {"a": str(tmp_path / "a"), "b": str(tmp_path / "b")}
    assert content["base"] == {"accuracy": 0.05, "loss": 6.5, "count": 400}
    assert content["a"]["accuracy"] == pytest.approx(0.15)
    assert set(content["comparison"]) == {"a_over_base", "b_over_base"}
    assert content["comparison"]["b_over_base"] == gain_of(0.3, 0.02).to_json()
    assert content["price"] == {"b": price_of(LARGE_DRIFT).to_json()}
    assert content["cost"]["a"]["evaluations"] == 41
    assert "categories" not in content
    assert "rivals" not in content


@pytest.mark.parametrize(
    ("of_a", "of_b", "better"),
    [
        ((0.1, 0.02), (0.3, 0.02), "B"),
        ((0.3, 0.02), (0.1, 0.02), "A"),
        ((0.1, 0.02), (0.12, 0.02), None),
        ((0.1, 0.5), (0.3, 0.02), None),  # one lies inside the other
        ((0.0, 0.25), (0.5, 0.25), None),  # they touch
        ((-0.04, 0.01), (0.0, 0.01), "B"),  # better than A, though not than the base
        ((float("nan"), float("nan")), (0.3, 0.02), None),
        ((0.1, float("inf")), (0.3, 0.02), None),
    ],
)
def test_without_pairs_one_is_better_only_where_the_intervals_do_not_overlap(
    compared: Any, of_a: tuple[float, float], of_b: tuple[float, float], better: str | None
) -> None:
    found = compared(result_of(), result_of())
    sides = (
        dataclasses.replace(side, over_base=Change(gain_of(*own))) for side, own in ((found.a, of_a), (found.b, of_b))
    )
    assert SideBySide(found.base_model, "t", "test", found.base, *sides).better == better


@pytest.mark.parametrize(
    ("interval", "better"), [((0.01, 0.1), "B"), ((-0.1, -0.01), "A"), ((0.0, 0.1), None), ((-0.1, 0.0), None)]
)
def test_paired_one_is_better_only_where_the_interval_leaves_out_0(
    compared: Any, interval: tuple[float, float], better: str | None
) -> None:
    """Whatever the gains over the base say."""
    found = compared(result_of(0.1), result_of(0.3))
    change = Change(Comparison(sum(interval) / 2, interval, 0.01, 3, 1))
    assert dataclasses.replace(found, b_over_a=change).better == better


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"base_model": BaseModel("tiny", "0" * 32)}, "both name tiny, and its weights were not the same;"),
        ({"base_model": BaseModel("other", "0" * 32)}, "was made for tiny, and "),
        ({"task": TaskUsed("other-facts", {"test": 400})}, "The task differs: small-facts in "),
        ({"task": TaskUsed("small-facts", {"test": 40})}, "The number of test examples differs: 400 in "),
        ({"task": TaskUsed("small-facts", {"test": 400}, 5)}, "The number of examples in the prompt differs: 0 in "),
        ({"metric": "f1"}, "The metric differs: accuracy in "),
        (
            {"base": {"test": Figures(0.05, 6.2, 400)}},
            "The test examples differ: the loss of the same base is 6.500 in ",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_stand_side_by_side_is_refused_with_the_remedy(
    compared: Any, tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageError) as refused:
        compared(result_of(), result_of(**changes))
    message = str(refused.value)
    assert said in message
    assert str(tmp_path / "a") in message
    assert str(tmp_path / "b") in message
    assert "; --task T scores both afresh" in message


def test_the_base_may_be_called_otherwise_and_differ_by_rounding(compared: Any) -> None:
    other = result_of(base_model=BaseModel("./tiny", "f" * 32), base={"test": Figures(0.05, 6.51, 400)})
    assert compared(result_of(), other).base_model.id == "tiny"


def test_two_classifiers_whose_heads_began_otherwise_are_told_so(compared: Any) -> None:
    base = {"test": Figures(0.5, 0.7, 400, metric=("f1", 0.4))}
    a, b = (result_of(metric="f1", base=base, base_model=BaseModel("tiny", digit * 32)) for digit in "01")
    with pytest.raises(UsageError, match="the head a classifier begins with included"):
        compared(a, b)


def test_a_folder_that_holds_no_finished_run_is_named(tmp_path: Path) -> None:
    unfinished, recipe, empty = tmp_path / "unfinished", tmp_path / "found" / "recipe", tmp_path / "empty"
    for folder in (unfinished, recipe, empty):
        folder.mkdir(parents=True)
    (unfinished / "config.json").write_text('{"run": "1"}')
    (recipe / "recipe.json").write_text("{}")
    (empty / "config.json").write_text('{"model_type": "llama"}')  # a model's
    for folder, said in (
        (tmp_path / "gone", "There is no folder "),
        (recipe / "recipe.json", "is a file"),
        (unfinished, "holds a run that is not finished: go on with it by --resume"),
        (empty, "is neither a run nor a recipe"),
    ):
        for read in (finished_run, recipe_folder):
            with pytest.raises(RunError, match=said) as refused:
                read(folder)
            assert str(folder) in str(refused.value)


def test_a_recipe_without_its_run_needs_a_task(tmp_path: Path) -> None:
    recipe = tmp_path / "run" / "recipe"
    recipe.mkdir(parents=True)
    (recipe / "recipe.json").write_text("{}")
    with pytest.raises(UsageError, match=r"add --task T, which scores it afresh\.$"):
        finished_run(recipe)
    write_run(tmp_path / "run", result_of())
    with pytest.raises(UsageError, match=r"or name its run, .*run\.$"):
        finished_run(recipe)
    assert recipe_folder(recipe) == recipe_folder(tmp_path / "run") == recipe


def test_a_result_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text('{"format": 1}')
    with pytest.raises(RunError, match="is not a result of this version"):
        finished_run(tmp_path)
