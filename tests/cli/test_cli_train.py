"""`strop train`: what it prints, what it leaves, and what it says to a wrong call."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import strop

QUICK = ["--epochs", "4", "--lr", "0.02", "--batch-size", "4", "--accumulate", "1", "--positions", "l2", "--rank", "4"]


@pytest.fixture
def train_call(tiny_folder: Path, even_facts: Path, tmp_path: Path) -> list[object]:
    return ["train", tiny_folder, "--task", even_facts, "--out", tmp_path / "run"]


def test_a_person_gets_a_table_what_was_learned_and_a_next_command_that_works(
    strop_command: Any, train_call: list[object], tiny_folder: Path, even_facts: Path, tmp_path: Path
) -> None:
    outcome = strop_command(*train_call, *QUICK)
    assert outcome.code == 0, outcome.err
    for shown in ("held out (test)", "95 % interval", "loreft of rank 4 at l2", "learned parameters"):
        assert shown in outcome.out
    assert "epoch 4: " in outcome.err
    line = outcome.out.splitlines()[-1]
    gains = json.loads((tmp_path / "run" / "result.json").read_text())["comparison"]["test"]["ci95"][0] > 0
    asked = f"{tiny_folder} --task {even_facts}"
    expected = (
        f"eval {asked} --recipe {tmp_path / 'run' / 'recipe'}"
        if gains
        else f"train {asked} --out {tmp_path / 'run-train'} --method spectrum"
    )
    assert line == f"Next: strop {expected}"
    assert strop_command(*line.split()[2:], "--quiet").code == 0


def test_what_begins_with_learned_edits_does_not_propose_a_checkpoint_that_cannot_be(
    strop_command: Any, train_call: list[object], tiny_folder: Path, even_facts: Path, tmp_path: Path
) -> None:
    assert strop_command(*train_call, *QUICK, "--quiet").code == 0
    learned = tmp_path / "run" / "recipe"
    pruned = strop_command(
        "prune", tiny_folder, "--task", even_facts, "--out", tmp_path / "both", "--after", learned,
        "--fraction", "0.05", "--iterate", "1", "--quiet",
    )  # fmt: skip
    assert pruned.code == 0, pruned.err
    assert "Next: strop bake" not in pruned.out
    baked = strop_command("bake", tiny_folder, "--recipe", learned, "--out", tmp_path / "model", "--quiet")
    assert (baked.code, baked.out) == (1, "")
    assert "keep the recipe and apply it" in baked.err
    assert not (tmp_path / "model").exists()


def test_every_option_reaches_the_plan(strop_command: Any, train_call: list[object], tmp_path: Path) -> None:
    notes = tmp_path / "notes.txt"
    notes.write_text("The city of Lyon is in France. " * 60)
    options = {
        "--method": "orthonormal-direft", "--layers": "1-2", "--rank": "3", "--positions": "f1+l1", "--stream": "mlp",
        "--activation": "tanh", "--subspaces": "a:1,b:2", "--train-subspaces": "b", "--init": "paper", "--epochs": "1",
        "--learning-rate": "0.01", "--batch-size": "2", "--accumulate": "3", "--weight-decay": "0.1", "--warmup": "0.2",
        "--schedule": "cosine", "--dropout": "0.1", "--dropout-on": "state", "--precision": "bfloat16",
        "--prefix-budget-mb": "1", "--patience": "2", "--train-limit": "6", "--select-limit": "5", "--test-limit": "4",
        "--seed": "7", "--keep-base": "3", "--keep-texts": "2", "--keep-text": str(notes),
    }  # fmt: skip
    words = [word for option in options.items() for word in option]
    outcome = strop_command(*train_call, *words, "--untied", "--gradient-checkpointing", "--quiet")
    assert outcome.code == 0, outcome.err
    plan = json.loads((tmp_path / "run" / "config.json").read_text())["plan"]
    del plan["after"]
    assert len(plan.pop("keep_text")) == 32
    assert plan == {
        "method": "orthonormal_direft", "layers": [1, 2], "rank": 3, "positions": "f1+l1", "stream": "mlp",
        "activation": "tanh", "subspaces": {"a": 1, "b": 2}, "train_subspaces": ["b"], "init": "paper", "epochs": 1,
        "learning_rate": 0.01, "batch_size": 2, "accumulate": 3, "weight_decay": 0.1, "warmup": 0.2,
        "schedule": "cosine", "dropout": 0.1, "dropout_on": "state", "precision": "bfloat16",
        "prefix_budget_bytes": 1_000_000, "patience": 2, "train_limit": 6, "select_limit": 5, "test_limit": 4,
        "seed": 7, "tied": False, "gradient_checkpointing": True, "max_grad_norm": 1.0, "report_to": [],
        "keep_base": 3.0, "keep_texts": 2,
    }  # fmt: skip


def test_options_of_edits_of_weights_reach_the_plan(
    strop_command: Any, train_call: list[object], tmp_path: Path
) -> None:
    options = [
        "--method",
        "spectrum",
        "--matrix-types",
        "up,value",
        "--top",
        "6",
        "--band",
        "1",
        "--layers",
        "1",
        "--epochs",
        "1",
    ]
    outcome = strop_command(*train_call, *options, "--keep-base", "0", "--quiet")
    assert outcome.code == 0, outcome.err
    plan = json.loads((tmp_path / "run" / "config.json").read_text())["plan"]
    kept = {name: plan.get(name) for name in ("method", "matrix_types", "top", "band", "learning_rate", "keep_base")}
    assert kept == {
        "method": "spectrum", "matrix_types": ["up", "value"], "top": 6, "band": 1, "learning_rate": 0.01, "keep_base": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--keep-text", "nowhere.txt"], "The text nowhere.txt cannot be read"),
        (["--method", "bias", "--rank", "4"], "rank goes with lora or edits of hidden states"),
        (["--rank", "600"], "a subspace of rank 600 does not fit into hidden states of size 32"),
        (["--layers", "40"], "'40' names a layer this model has not"),
        (["--positions", "f0"], "Positions name at least one token"),
        (["--positions", "x7"], "'x7' does not name positions"),
        (["--method", "dora"], "'dora' is not a method of training"),
        (["--lr", "0"], "learning_rate is above 0"),
        (["--method", "consreft"], "consreft cannot begin as the identity"),
        (["--subspaces", "a:3"], "do not add up to the rank, 8"),
        (["--subspaces", "a=8"], "--subspaces is a list of names and ranks"),
        (["--train-subspaces", "a"], "the edit has no subspace 'a'; it has none"),
        (["--report-to", "nowhere"], "Losses cannot be reported to nowhere"),
    ],
)
def test_a_wrong_call_is_one_sentence_and_leaves_nothing(
    refused: Callable[..., str], train_call: list[object], options: list[str], said: str
) -> None:
    assert said in refused(*train_call, *options, code=2)


def test_a_task_without_a_train_split_is_refused(
    refused: Callable[..., str], train_call: list[object], even_facts: Path
) -> None:
    even_facts.write_text(even_facts.read_text().replace("train: 0.3, ", ""))
    assert "has no train split" in refused(*train_call)


def test_the_recipe_of_a_run_loads_where_the_model_is(
    strop_command: Any, train_call: list[object], tiny_folder: Path, tmp_path: Path
) -> None:
    assert strop_command(*train_call, *QUICK, "--quiet").code == 0
    recipe = strop.Recipe.load(tmp_path / "run" / "recipe")
    model, _ = strop.load(str(tiny_folder))
    with strop.applied(model, recipe):
        pass
