"""A checkpoint is a recipe that loads from its path, holds nothing of the base model and nothing pickled, and is whole."""

import dataclasses
import errno
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import strop
from strop.errors import TrainingError
from strop.recipe import Recipe
from strop.training import TrainPlan
from strop.training.checkpoints import add_recipe, checkpoints_in
from strop.training.state import (
    randomness,
    read_optimiser,
    read_randomness,
    restore_randomness,
    write_optimiser,
    write_randomness,
)

pytestmark = pytest.mark.thorough

FILES = {
    "README.md",
    "optimizer.json",
    "optimizer.safetensors",
    "randomness-0.json",
    "recipe.json",
    "tensors.safetensors",
    "trainer_state.json",
}


@pytest.fixture(scope="module")
def stopped_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the run folder is that the tests of this file copy."""
    return tmp_path_factory.mktemp("stopped") / "run"


@pytest.fixture
def stopped(training: Any, stopped_after: Any, stopped_once: Path, plan: TrainPlan, tmp_path: Path) -> Path:
    """A run folder with one checkpoint, at step 15."""
    if not stopped_once.exists():
        stopped_after(15)
        with pytest.raises(KeyboardInterrupt):
            training(plan, out=stopped_once)
    return shutil.copytree(stopped_once, tmp_path / "run")


def test_a_checkpoint_is_a_recipe_and_nothing_of_the_base(stopped: Path, tiny: Any) -> None:
    (checkpoint,) = checkpoints_in(stopped / "checkpoints")
    assert {path.name for path in checkpoint.iterdir()} == FILES
    kept = Recipe.load(checkpoint)
    learned = sum(tensor.numel() for tensors in kept.tensors for tensor in tensors.values())
    assert learned == 2 * 4 * (2 * 32 + 1)
    for name, copies in (("tensors", 1), ("optimizer", 2)):
        assert (checkpoint / f"{name}.safetensors").stat().st_size < copies * 4 * learned + 2500
    model = tiny("llama")
    before = model(torch.tensor([[5, 6, 7]]), labels=torch.tensor([[-100, -100, 7]])).logits
    with strop.applied(model, kept):
        after = model(
            torch.tensor([[5, 6, 7]]), attention_mask=torch.ones(1, 3), labels=torch.tensor([[-100, -100, 7]])
        ).logits
    assert not torch.equal(before, after)


def test_nothing_in_a_run_folder_is_pickled(stopped: Path, training: Any, plan: TrainPlan) -> None:
    training(plan, out=stopped, resume=True)
    kinds = {path.suffix for path in stopped.rglob("*") if path.is_file()}
    assert kinds == {".json", ".jsonl", ".safetensors", ".md", ".db", ".txt"}
    assert not list(stopped.rglob(".*"))
    assert {path.name for path in stopped.iterdir()} == {
        *(
            "answers.jsonl",
            "best",
            "checkpoints",
            "config.json",
            "environment.json",
            "log.txt",
            "recipe",
            "result.json",
        ),
        "study.db",
    }


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def put_list(path: Path) -> None:
    path.write_text("[1, 2]")


def put_nan(path: Path) -> None:
    tensors = load_file(path)
    name = min(name for name in tensors if "exp_avg" in name)
    save_file({**tensors, name: torch.full_like(tensors[name], torch.nan)}, path)


def put_other_shapes(path: Path) -> None:
    tensors = load_file(path)
    save_file({name: own[..., :1].clone() if own.ndim else own for name, own in tensors.items()}, path)


def put_other_indices(path: Path) -> None:
    save_file({f"9{name}": own for name, own in load_file(path).items()}, path)


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        ("optimizer.json", cut), ("optimizer.json", put_list), ("optimizer.json", Path.unlink),
        ("optimizer.safetensors", cut), ("optimizer.safetensors", put_nan), ("optimizer.safetensors", put_other_shapes),
        ("optimizer.safetensors", put_other_indices), ("optimizer.safetensors", Path.unlink),
        ("trainer_state.json", cut), ("trainer_state.json", put_list),
        ("randomness-0.json", cut), ("randomness-0.json", put_list),
    ],
)  # fmt: skip
def test_a_damaged_checkpoint_is_refused_in_a_sentence_that_names_it(
    stopped: Path, training: Any, plan: TrainPlan, file: str, damage: Any
) -> None:
    (checkpoint,) = checkpoints_in(stopped / "checkpoints")
    damage(checkpoint / file)
    with pytest.raises(TrainingError) as caught:
        training(plan, out=stopped, resume=True)
    sentence = str(caught.value)
    assert sentence.startswith(f"The checkpoint {checkpoint} is damaged (")
    assert "): delete that folder, and the training goes on from the one before it, or begins anew" in sentence
    assert "\n" not in sentence


def test_a_training_begins_anew_once_its_damaged_checkpoint_is_deleted(
    stopped: Path, training: Any, whole: Any, figures: Any, plan: TrainPlan
) -> None:
    (checkpoint,) = checkpoints_in(stopped / "checkpoints")
    shutil.rmtree(checkpoint)
    again, expected = training(plan, out=stopped, resume=True), whole(plan).outcome
    assert (figures(again), again.recipe) == (figures(expected), expected.recipe)


def test_one_checkpoint_is_kept(stopped: Path, training: Any, plan: TrainPlan) -> None:
    training(plan, out=stopped, resume=True)
    assert [path.name for path in checkpoints_in(stopped / "checkpoints")] == ["checkpoint-48"]


@pytest.mark.parametrize("file", ["optimizer.safetensors", "trainer_state.json"])
def test_a_full_disk_leaves_the_checkpoint_before_whole(
    training: Any, whole: Any, figures: Any, plan: TrainPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    expected = whole(plan)
    calls = []

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        if file == "trainer_state.json":
            from transformers import TrainerState

            save = TrainerState.save_to_json

            def saving(self: TrainerState, path: str) -> None:
                calls.append(path)
                if len(calls) > 2:
                    Path(path).write_text("{")
                    full()
                save(self, path)

            patch.setattr(TrainerState, "save_to_json", saving)
        else:
            from safetensors.torch import save_file

            def saving_file(tensors: Any, path: Any, **named: Any) -> None:
                calls.append(path)
                if len(calls) > 2:
                    full()
                save_file(tensors, path, **named)

            patch.setattr("strop.training.state.save_file", saving_file)
        with pytest.raises(OSError, match="No space left"):
            training(plan, out=tmp_path / "run")
    folder = tmp_path / "run" / "checkpoints"
    assert [path.name for path in folder.iterdir()] == ["checkpoint-24"]
    Recipe.load(folder / "checkpoint-24")
    again = training(plan, out=tmp_path / "run", resume=True)
    assert (figures(again), again.recipe) == (figures(expected.outcome), expected.outcome.recipe)


def test_a_checkpoint_of_other_edits_is_refused(stopped: Path, training: Any, plan: TrainPlan) -> None:
    (checkpoint,) = checkpoints_in(stopped / "checkpoints")
    content = json.loads((checkpoint / "recipe.json").read_text())
    content["interventions"][0]["positions"] = "l1"
    (checkpoint / "recipe.json").write_text(json.dumps(content))
    with pytest.raises(strop.StropError, match="holds other edits than those being trained"):
        training(plan, out=stopped, resume=True)


def test_a_checkpoint_of_fewer_processes_is_refused(stopped: Path, training: Any, plan: TrainPlan) -> None:
    (checkpoint,) = checkpoints_in(stopped / "checkpoints")
    (checkpoint / "randomness-0.json").unlink()
    with pytest.raises(strop.StropError, match="not written by as many processes as there are now"):
        training(plan, out=stopped, resume=True)


def test_an_optimisers_state_comes_back_to_the_last_bit(tmp_path: Path) -> None:
    parameters = [torch.nn.Parameter(torch.randn(3, 2)), torch.nn.Parameter(torch.randn(4))]
    optimiser = torch.optim.AdamW([{"params": parameters[:1], "weight_decay": 0.1}, {"params": parameters[1:]}], lr=0.3)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: 1 / (step + 3))
    sum(parameter.square().sum() for parameter in parameters).backward()
    for _ in range(3):
        optimiser.step()
        schedule.step()
    write_optimiser(tmp_path, optimiser.state_dict(), schedule.state_dict(), {"scale": 2.0**16})
    state, rates, scale = read_optimiser(tmp_path)
    copies = [torch.nn.Parameter(parameter.detach().clone()) for parameter in parameters]
    again = torch.optim.AdamW([{"params": copies[:1]}, {"params": copies[1:]}], lr=9.0)
    again.load_state_dict(state)
    assert scale == {"scale": 65536.0}
    assert rates["last_epoch"] == 3
    for mine, theirs in zip(copies, parameters, strict=True):
        mine.grad = theirs.grad.clone()
    optimiser.step()
    again.step()
    for mine, theirs in zip(copies, parameters, strict=True):
        assert torch.equal(mine, theirs)


def test_an_optimiser_that_has_taken_no_step_is_kept_too(tmp_path: Path) -> None:
    optimiser = torch.optim.AdamW([torch.nn.Parameter(torch.randn(2))])
    write_optimiser(tmp_path, optimiser.state_dict(), {}, {})
    assert read_optimiser(tmp_path)[0]["state"] == {}


def test_every_source_of_randomness_goes_on_from_where_it_was(tmp_path: Path) -> None:
    import random

    import numpy as np

    before = randomness()
    np.random.standard_normal()  # leaves a second one for the next call
    write_randomness(tmp_path, [randomness()])
    drawn = (random.random(), np.random.standard_normal(), torch.rand(3).tolist())
    read_randomness(tmp_path, 0)
    assert (random.random(), np.random.standard_normal(), torch.rand(3).tolist()) == drawn
    restore_randomness(before)
    assert randomness() == before


def test_a_recipe_is_put_beside_other_files(training: Any, plan: TrainPlan, tmp_path: Path) -> None:
    recipe = training(dataclasses.replace(plan, epochs=1)).recipe
    (tmp_path / "out" / "checkpoint-3").mkdir(parents=True)
    for _ in range(2):
        add_recipe(recipe, tmp_path / "out")
        assert {path.name for path in (tmp_path / "out").iterdir()} == {
            *("README.md", "checkpoint-3", "recipe.json", "tensors.safetensors")
        }
    assert Recipe.load(tmp_path / "out") == recipe
