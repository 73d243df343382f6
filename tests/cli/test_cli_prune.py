"""`strop prune`: what it prints, what it leaves, and what it says to a wrong call."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import strop
from strop.proving import Claim, Trial
from strop.searching import PrunePlan

QUICK = ["--fraction", "0.05,0.1", "--iterate", "2"]


@pytest.fixture
def prune_call(tiny_folder: Path, even_facts: Path, tmp_path: Path) -> list[object]:
    return ["prune", tiny_folder, "--task", even_facts, "--out", tmp_path / "run"]


def test_a_person_gets_a_table_few_lines_and_the_next_command(
    strop_command: Any, prune_call: list[object], tmp_path: Path
) -> None:
    outcome = strop_command(*prune_call, *QUICK, "--allow-harmful")
    assert outcome.code == 0, outcome.err
    for shown in ("held out (test)", "ain:", "95 % interval", "evaluations in", "Next: strop "):
        assert shown in outcome.out
    assert "no edit: accuracy" in outcome.err
    assert "round 1: " in outcome.err
    assert len(outcome.out.splitlines()) < 36


@pytest.mark.parametrize(
    ("options", "plan"),
    [
        (
            ["--layers", "1"],
            {"layers": [1], "scopes": ["global"], "bias": "none", "reduction": "consistency", "iterate": 16},
        ),
        (
            ["--compat", "paper", "--effect-examples", "6"],
            {"counterfactual": "roll", "reduction": "max", "bias": "position", "matrix_types": ["key"],
             "fractions": [0.2], "iterate": 1, "allow_harmful": True, "effect_examples": 6},
        ),
        (
            ["--compat", "paper", "--bias", "mean", "--fraction", "0.1", "--matrix-types", "up,down"],
            {"counterfactual": "roll", "bias": "mean", "fractions": [0.1], "matrix_types": ["up", "down"]},
        ),
        (
            ["--scope", "global, per-matrix", "--search-types", "--whole-matrices", "--layers", "1-2",
             "--counterfactual", "pairs", "--reduction", "mean-abs", "--steps", "2", "--finalists", "1",
             "--patience", "1", "--select-limit", "9", "--test-limit", "8", "--seed", "3", *QUICK],
            {"scopes": ["global", "per-matrix"], "search_types": True, "whole_matrices": True, "layers": [1, 2],
             "counterfactual": "pairs", "reduction": "mean-abs", "steps": 2, "finalists": 1, "patience": 1,
             "select_limit": 9, "test_limit": 8, "seed": 3, "fractions": [0.05, 0.1], "iterate": 2},
        ),
    ],
    ids=["plain", "paper", "paper but", "all"],
)  # fmt: skip
def test_every_option_reaches_the_plan(
    strop_command: Any,
    prune_call: list[object],
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    plan: dict[str, Any],
) -> None:
    plans: list[PrunePlan] = []

    def planned(_model: object, _tokenizer: object, _task: object, plan: PrunePlan, _options: object) -> None:
        plans.append(plan)
        raise KeyboardInterrupt

    monkeypatch.setattr("strop.searching.prune", planned)
    assert strop_command(*prune_call, *options, "--json", "--quiet").code == 1
    found = json.loads(json.dumps(plans[0].to_json()))
    assert {name: found[name] for name in plan} == plan


def test_the_plan_is_followed_and_kept(strop_command: Any, prune_call: list[object], tmp_path: Path) -> None:
    outcome = strop_command(
        *prune_call, *QUICK, "--compat", "paper", "--bias", "mean", "--layers", "1-2", "--json", "--quiet"
    )
    assert outcome.code == 0, outcome.err
    found = json.loads((tmp_path / "run" / "config.json").read_text())["plan"]
    assert (found["bias"], found["layers"], found["counterfactual"]) == ("mean", [1, 2], "roll")
    assert outcome.json["interventions"]
    assert {entry["layer"] for entry in outcome.json["interventions"]} <= {1, 2}
    assert {entry["bias"] for entry in outcome.json["interventions"]} <= {found["bias"]}


def test_a_pruning_begins_with_a_searchs_recipe_and_bakes(
    strop_command: Any, tiny_folder: Path, even_facts: Path, quick: list[str], prune_call: list[object], tmp_path: Path
) -> None:
    found = tmp_path / "found"
    assert strop_command("search", tiny_folder, "-t", even_facts, "-o", found, "-q", *quick).code == 0
    searched = json.loads((found / "result.json").read_text())["interventions"]
    assert searched
    outcome = strop_command(*prune_call, *QUICK, "--after", found / "recipe", "--with-factors", "--json", "--quiet")
    assert outcome.code == 0, outcome.err
    assert outcome.json["interventions"][: len(searched)] == searched
    assert set(outcome.json["start"]) == {"select", "test"}
    assert "test_over_start" in outcome.json["comparison"]
    told = strop_command(*prune_call, *QUICK, "--after", found / "recipe", "--with-factors", "--resume").out
    assert ("Held-out gain over the recipe it began with: " in told) == ("start" in outcome.json)
    assert told.count("Held-out gain: ") == 1
    recipe = tmp_path / "run" / "recipe"
    alone = strop_command("eval", tiny_folder, "-t", even_facts, "--recipe", recipe, "--json", "-q").json
    assert alone["edited"]["loss"] == pytest.approx(outcome.json["edited"]["test"]["loss"], rel=1e-4)
    baked = strop_command("bake", tiny_folder, "--recipe", recipe, "--out", tmp_path / "baked", "-q")
    assert baked.code == 0, baked.err


def test_an_interrupted_pruning_says_how_to_go_on_and_goes_on(
    strop_command: Any, prune_call: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, finished = Claim.finish, []

    def interrupted(self: Claim, trial: Trial) -> None:
        real(self, trial)
        finished.append(trial.key)
        if len(finished) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(Claim, "finish", interrupted)
    outcome = strop_command(*prune_call, *QUICK, "--quiet")
    run = tmp_path / "run"
    assert (outcome.code, outcome.out) == (1, "")
    assert outcome.err == (
        f"Error: Interrupted. Finished trials are kept in {run}; repeat the command with --resume to go on.\n"
    )
    assert not (run / "result.json").exists()
    refused = strop_command(*prune_call, *QUICK, "--quiet")
    assert refused.code == 1
    assert "holds a run that was interrupted: go on with it by --resume" in refused.err
    resumed = strop_command(*prune_call, *QUICK, "--quiet", "--resume", "--json")
    assert resumed.code == 0
    assert len(set(finished)) == len(finished) > 3
    strop.Recipe.load(run / "recipe")


def test_a_task_without_right_and_wrong_is_pruned_for_its_loss(
    strop_command: Any, prune_call: list[object], even_facts: Path
) -> None:
    even_facts.write_text(even_facts.read_text() + "score: perplexity\n")
    outcome = strop_command(*prune_call, *QUICK)
    assert outcome.code == 0
    assert "nats per token" in outcome.out
    assert "accuracy" not in outcome.out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--fraction", "0"], "A fraction (fractions, --fraction) is the share"),
        (["--fraction", "1"], "lies between 0 and 1, both excluded, not 1."),
        (["--fraction", "0.1,1.5"], "not 1.5."),
        (["--fraction", "-1"], "not -1."),
        (["--fraction", "nan"], "not nan."),
        (["--fraction", "abc"], "--fraction is a comma-separated list of numbers, not 'abc'"),
        (["--fraction", ""], "--fraction is a comma-separated list of numbers, not ''"),
        (["--scope", "galaxy"], "scopes are among global, per-type, per-matrix, not 'galaxy'"),
        (["--scope", ""], "scopes are among global, per-type, per-matrix, not ''"),
        (["--iterate", "0"], "iterate is 1 or more, not 0"),
        (["--patience", "0"], "patience is 1 or more, not 0"),
        (["--finalists", "0"], "finalists is 1 or more, not 0"),
        (["--effect-examples", "0"], "effect_examples is 1 or more, not 0"),
        (["--steps", "0"], "steps is 1 or more, not 0"),
        (["--seed", "-1"], "seed is 0 or more, not -1"),
        (["--matrix-types", "lm_head"], "'lm_head' cannot be edited"),
        (["--layers", "2-9"], "'2-9' names a layer this model has not: it has layers 0 to 2"),
        (
            ["--counterfactual", "roll", "--effect-examples", "1"],
            "take two examples or more, or another counterfactual",
        ),
    ],
    ids=str,
)
def test_an_option_that_cannot_mean_anything_is_named(
    refused: Any, prune_call: list[object], options: list[str], said: str
) -> None:
    assert said in refused(*prune_call, *options, code=2)


@pytest.mark.parametrize(
    "options",
    [
        ["--counterfactual", "guess"],
        ["--bias", "median"],
        ["--reduction", "min"],
        ["--compat", "laser"],
        ["--iterate", "x"],
    ],
    ids=" ".join,
)
def test_a_choice_there_is_not_exits_with_two_and_names_the_option(
    strop_command: Any, prune_call: list[object], options: list[str]
) -> None:
    outcome = strop_command(*prune_call, *options)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith(f"Error: Invalid value for '{options[0]}': ")
    assert outcome.err.count("\n") == 1


def test_a_recipe_that_is_not_there_is_named_before_a_model_is_loaded(
    refused: Any, even_facts: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("gone", "empty"):
        message = refused(
            "prune", "no-such-model", "-t", even_facts, "-o", tmp_path / "run", "--after", tmp_path / name
        )
        assert f"{tmp_path / name} is not a recipe: it holds no recipe.json." in message


def test_a_run_in_place_of_its_recipe_is_guessed_and_another_models_recipe_refused(
    refused: Any,
    strop_command: Any,
    tiny: Callable[..., Any],
    tiny_folder: Path,
    small_tokenizer: Any,
    even_facts: Path,
    quick: list[str],
    tmp_path: Path,
) -> None:
    found, other = tmp_path / "found", tmp_path / "other"
    assert strop_command("search", tiny_folder, "-t", even_facts, "-o", found, "-q", *quick).code == 0
    tiny("llama", intermediate_size=64).save_pretrained(other)
    small_tokenizer.save_pretrained(other)
    call = ["-t", even_facts, "-o", tmp_path / "run", "--after"]
    assert f"Did you mean {found / 'recipe'}?" in refused("prune", tiny_folder, *call, found)
    message = refused("prune", other, *call, found / "recipe")
    assert "is not the matrix the recipe was made for" in message


def test_what_does_not_fit_the_examples_is_refused_with_the_remedy(
    refused: Any, tiny_folder: Path, facts: Path, tmp_path: Path
) -> None:
    call = ["prune", tiny_folder, "--task", facts, "--out", tmp_path / "run"]
    message = refused(*call, "--counterfactual", "pairs")
    assert "it has no counterfactual; give the task file a template in counterfactual:" in message
    assert "take bias 'mean' (--bias mean)" in refused(*call, "--bias", "position", code=2)
    assert "take bias 'mean' (--bias mean)" in refused(*call, "--compat", "paper", code=2)
