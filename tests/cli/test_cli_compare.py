"""`strop compare`: two runs side by side, and two recipes scored again example by example."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.fixtures.results import LARGE_DRIFT, SMALL_DRIFT, price_of, result_of, write_run

import strop
from strop.anatomy import MatrixType, WeightSite
from strop.interventions import Head, RankReduction
from strop.recipe import Recipe

EDITS = {
    "up": RankReduction(WeightSite(2, MatrixType.UP), 0.1),
    "value": RankReduction(WeightSite(1, MatrixType.VALUE), 0.1),
}


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    """Two finished runs of one base and task."""
    a, b = result_of(0.1, price=price_of(LARGE_DRIFT)), result_of(0.3, price=price_of(SMALL_DRIFT))
    return [write_run(tmp_path / "a", a), write_run(tmp_path / "b", b)]


@pytest.fixture
def recipes(tiny_folder: Path, tmp_path: Path) -> list[Path]:
    """A run's folder with its recipe inside, and a recipe that stands alone."""
    model, _ = strop.load(str(tiny_folder))
    Recipe.of(model, [EDITS["up"]]).save(tmp_path / "laser" / "recipe")
    return [tmp_path / "laser", Recipe.of(model, [EDITS["value"]]).save(tmp_path / "value")]


def test_two_runs_are_shown_side_by_side_without_loading_a_model(
    strop_command: Any, runs: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("strop.cli.compare.load_for_command", lambda *given, **more: pytest.fail("it was loaded"))
    outcome = strop_command("compare", *runs)
    assert (outcome.code, outcome.err) == (0, "")
    for said in ("tiny on small-facts/test", "gain over base", "words changed", "B is the better one"):
        assert said in outcome.out
    assert outcome.out.splitlines()[-1] == f"Next: strop compare {runs[0]} {runs[1]} --task TASK --model MODEL"
    found = strop_command("compare", *runs, "--json", "--quiet").json
    assert (found["command"], found["paired"], found["better"]) == ("compare", False, "b")


def test_runs_that_kept_their_answers_are_paired_and_the_better_one_is_baked_next(
    strop_command: Any, runs: list[Path], tiny_folder: Path
) -> None:
    from strop.runs import KeptAnswer, write_answers

    for run, right in zip(runs, (0, 1), strict=True):
        kept = [
            KeptAnswer(row=n, score="exact", prompt=f"{n}", wanted="x", right_after=n % 4 <= right) for n in range(80)
        ]
        write_answers(run, kept)
    outcome = strop_command("compare", *runs)
    assert (outcome.code, outcome.err) == (0, "")
    assert "B over A: +25.0 points" in outcome.out
    assert "B is better on examples like these" in outcome.out
    assert outcome.out.endswith(f"Next: strop report {runs[0]} {runs[1]}\n")  # nothing was edited that could be baked
    edits = ({"method": "rank_reduction", "layer": 1, "matrix_type": "up", "rank_fraction": 0.5},)
    write_run(runs[1], result_of(0.3, price=price_of(SMALL_DRIFT), interventions=edits))
    Recipe.of(strop.load(str(tiny_folder))[0], [EDITS["up"]]).save(runs[1] / "recipe")
    following = strop_command("compare", *runs).out.splitlines()[-1]
    assert following == f"Next: strop bake MODEL --recipe {runs[1] / 'recipe'} --out {runs[1] / 'model'}"
    found = strop_command("compare", *runs, "--json", "--quiet").json
    assert (found["paired"], found["better"], found["comparison"]["b_over_a"]["gain"]) == (True, "b", 0.25)


def test_the_next_command_needs_no_model_where_the_base_lies_under_its_name(
    strop_command: Any, runs: list[Path], tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tiny").symlink_to(tiny_folder)
    monkeypatch.chdir(tmp_path)
    assert strop_command("compare", *runs).out.endswith(" --task TASK\n")


def test_the_next_command_names_a_builtin_task_and_its_shots(strop_command: Any, tmp_path: Path) -> None:
    from strop.runs import TaskUsed

    runs = [write_run(tmp_path / name, result_of(task=TaskUsed("int-sum", {"test": 400}, 2))) for name in "ab"]
    assert strop_command("compare", *runs).out.endswith(" --task int-sum --shots 2 --model MODEL\n")


def test_two_recipes_are_scored_on_the_same_examples_as_eval_scores_each(
    strop_command: Any, recipes: list[Path], tiny_folder: Path, facts: Path
) -> None:
    call = ["--task", facts, "--limit", 10, "--json", "--quiet"]
    outcome = strop_command("compare", *recipes, *call)
    assert (outcome.code, outcome.err) == (0, "")
    found = outcome.json
    assert set(found) == {
        "format", "command", "paired", "base_model", "task", "folders", "base", "a", "b", "better", "comparison", "price",
        "rivals",
    }  # fmt: skip
    assert found["paired"] is True
    assert found["task"] == {"name": "small-facts", "score": "exact", "split": "test"}
    assert found["folders"] == {"a": str(recipes[0] / "recipe"), "b": str(recipes[1])}
    assert set(found["comparison"]) == {"a_over_base", "b_over_base", "b_over_a"}
    for name in ("a", "b"):
        alone = strop_command("eval", tiny_folder, "--recipe", found["folders"][name], *call).json
        assert alone["base_model"] == found["base_model"]
        for mine, theirs in ((found["base"], alone["base"]), (found[name], alone["edited"])):
            assert mine["loss"] == pytest.approx(theirs["loss"], rel=1e-5)
            assert {**mine, "loss": 0} == {**theirs, "loss": 0}
        assert found["comparison"][f"{name}_over_base"] == alone["comparison"]
        assert (found["price"][name], found["rivals"][name]) == (alone["price"], alone["rivals"])


def test_a_person_reads_the_gain_of_b_over_a_and_where_it_is(
    strop_command: Any, recipes: list[Path], facts: Path
) -> None:
    facts.write_text(facts.read_text() + "category: answer\n")
    outcome = strop_command("compare", *recipes, "--task", facts, "--limit", 10)
    assert outcome.code == 0, outcome.err
    for said in (
        "small-facts/test", "macro average", "by category", "average", "B over A: ", "95 % interval", "The interval ",
        f"A is {recipes[0] / 'recipe'}.", "words the base would say",
    ):  # fmt: skip
        assert said in outcome.out
    assert "running on" in outcome.err


def test_where_a_sample_does_not_tell_all_examples_are_next_and_baking_only_where_there_is_a_gain(
    strop_command: Any, recipes: list[Path], facts: Path
) -> None:
    call = ["compare", recipes[0], recipes[0], "--task", facts, "--quiet", "--split", "select"]
    sample = strop_command(*call, "--limit", 4).out
    assert "neither is shown to be better" in sample
    assert sample.endswith(f"Next: strop compare {recipes[0]} {recipes[0]} --task {facts} --split select\n")
    recipe = recipes[0] / "recipe"
    whole = strop_command(*call).out.splitlines()[-1]
    gains = strop_command(*call, "--json").json["comparison"]["a_over_base"]["ci95"][0] > 0
    assert whole.startswith("Next: strop bake " if gains else "Next: strop inspect ")
    assert f"--recipe {recipe}" in whole


def test_what_cannot_be_baked_is_inspected_next(
    strop_command: Any, tiny_folder: Path, facts: Path, tmp_path: Path
) -> None:
    model, _ = strop.load(str(tiny_folder))
    empty = Recipe.of(model, []).save(tmp_path / "empty")
    outcome = strop_command("compare", empty, empty, "--task", facts, "--quiet")
    assert outcome.out.endswith(f"Next: strop inspect {tiny_folder} --recipe {empty}\n")


def test_the_base_is_named_where_the_recipe_names_none_that_is_there(
    strop_command: Any, refused: Any, recipes: list[Path], tiny_folder: Path, facts: Path
) -> None:
    for folder in (recipes[0] / "recipe", recipes[1]):
        content = json.loads((folder / "recipe.json").read_text())
        content["base"]["id"] = "./moved"
        (folder / "recipe.json").write_text(json.dumps(content))
    message = refused("compare", *recipes, "--task", facts)
    assert "name it with --model: The model folder './moved' is not there" in message
    assert str(recipes[0] / "recipe") in message
    named = strop_command("compare", *recipes, "--task", facts, "--model", tiny_folder, "--limit", 4, "--json")
    assert named.json["base_model"]["id"] == tiny_folder.name


def test_what_can_only_be_asked_of_a_task_is_refused_without_one(refused: Any, runs: list[Path]) -> None:
    for option in (
        ["--limit", "4"],
        ["--split", "select"],
        ["--shots", "1"],
        ["--force"],
        ["--model", "x"],
        ["--device", "cpu"],
    ):
        message = refused("compare", *runs, *option, code=2)
        assert message.startswith(f"{option[0]} is about scoring afresh; give a task with --task")


def test_a_folder_that_is_none_is_named(refused: Any, runs: list[Path], recipes: list[Path], tmp_path: Path) -> None:
    unfinished = tmp_path / "unfinished"
    unfinished.mkdir()
    (unfinished / "config.json").write_text('{"run": "1"}')
    (tmp_path / "empty").mkdir()
    for more in ([], ["--task", "world-facts"]):
        for wrong, said in (
            (tmp_path / "lser", "There is no folder "),
            (runs[0] / "result.json", "is a file"),
            (tmp_path / "empty", "is neither a run nor a recipe"),
            (unfinished, "is not finished: go on with it by --resume"),
        ):
            right = recipes[1] if more else runs[0]
            assert said in refused("compare", wrong, right, *more)
            message = refused("compare", right, wrong, *more)
            assert said in message
            assert str(wrong) in message
    assert "is a recipe, and what a run measured is compared: add --task T" in refused(
        "compare", runs[0], recipes[1], code=2
    )


def test_runs_of_other_bases_and_tasks_are_refused(refused: Any, runs: list[Path], tmp_path: Path) -> None:
    from strop.runs import BaseModel, TaskUsed

    for number, (changes, said) in enumerate(
        (
            ({"base_model": BaseModel("other", "0" * 32)}, "was made for tiny, and "),
            ({"task": TaskUsed("small-facts", {"test": 4})}, "The number of test examples differs: 400 in "),
        )
    ):
        other = write_run(tmp_path / f"other-{number}", result_of(**changes))
        message = refused("compare", runs[0], other, code=2)
        assert said in message
        assert "--task T scores both afresh" in message


def test_recipes_of_other_bases_are_refused_before_a_model_is_loaded(
    refused: Any, recipes: list[Path], tiny: Callable[..., Any], facts: Path, tmp_path: Path
) -> None:
    other = Recipe.of(tiny("gpt2"), [EDITS["value"]]).save(tmp_path / "other")
    message = refused("compare", recipes[1], other, "--task", facts, "--model", "no-such-model")
    assert message.startswith(f"{recipes[1]} and {other} were made for different bases (")
    assert "--force" in message


def test_a_classifiers_recipe_and_what_the_task_cannot_be_asked_are_refused_first(
    refused: Any, recipes: list[Path], tiny_classifier: Callable[..., Any], facts: Path, tmp_path: Path
) -> None:
    model = tiny_classifier("llama")
    head = Head.of(model, ("france", "brazil"))
    folder = Recipe.of(model, [EDITS["value"]], head=head).save(tmp_path / "classifier")
    call = ["--task", facts, "--model", "no-such-model"]
    assert "2 labels (france, brazil), and task small-facts has none" in refused(
        "compare", folder, folder, *call, code=2
    )
    assert "'dev' is not a split" in refused("compare", *recipes, *call, "--split", "dev", code=2)
    assert "A limit is 1 or more examples, not 0" in refused("compare", *recipes, *call, "--limit", "0", code=2)
    assert "There is no task 'fact'" in refused("compare", *recipes, "--task", "fact")


def test_two_classifiers_are_compared_on_their_task(
    strop_command: Any, tiny_folder: Path, cities: Callable[..., Path], tmp_path: Path
) -> None:
    quick = ["--rank", "1", "--positions", "f3+l3", "--epochs", "1", "--batch-size", "8", "--lr", "0.01", "--quiet"]
    for name, seed in (("a", 0), ("b", 1)):
        out = tmp_path / name
        done = strop_command("train", tiny_folder, "--task", cities(), "--out", out, "--seed", seed, *quick)
        assert done.code == 0, done.err
    outcome = strop_command("compare", tmp_path / "a", tmp_path / "b", "--task", cities(), "--quiet")
    assert outcome.code == 0, outcome.err
    assert "B over A: " in outcome.out
    assert "A: Price: not known. " in outcome.out
    assert f"Next: strop inspect {tiny_folder}" in outcome.out
