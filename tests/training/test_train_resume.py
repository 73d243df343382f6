"""A training that was stopped goes on as if it had not been: losses, tensors and figures are the same to the last bit."""

import dataclasses
import importlib
import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.fixtures.warm import StartWarm

import strop
from strop.files import replacing_folder
from strop.proving import Claim, Study
from strop.recipe import Recipe
from strop.training import InterventionCheckpoints, TrainPlan
from strop.training.checkpoints import checkpoints_in
from strop.training.prefix_states import PrefixStates
from strop.training.trainer import EditTrainer

pytestmark = pytest.mark.thorough

STEPS_OF_EPOCH = 12
CONDUCT = importlib.import_module("strop.proving.conduct")  # the room lists a function of that name

VARIANTS: dict[str, dict[str, Any]] = {
    "dropout": {"dropout": 0.3},
    "dropout of the state, untied, with weight decay": {
        **{"dropout": 0.3, "dropout_on": "state", "tied": False},
        **{"weight_decay": 0.1, "method": "direft", "schedule": "cosine"},
    },
    "two passes a step": {"batch_size": 2, "accumulate": 2, "dropout": 0.1},
    "passes left over, no prefix": {"batch_size": 5, "accumulate": 3, "prefix_budget_bytes": 0},
    "kept to the base, two passes a step": {"keep_base": 3.0, "keep_texts": 2, "batch_size": 2, "accumulate": 2},
    "half a prefix in bfloat16": {"prefix_budget_bytes": 20_000, "precision": "bfloat16", "schedule": "constant"},
}


def same_tensors(one: Recipe, two: Recipe) -> bool:
    return all(
        mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)
        for mine, theirs in zip(one.tensors, two.tensors, strict=True)
    )


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)
def test_a_training_stopped_within_an_epoch_goes_on_to_the_last_bit(
    training: Any, seen: Any, stopped_after: Any, figures: Any, plan: TrainPlan, tmp_path: Path, changes: dict[str, Any]
) -> None:
    plan = dataclasses.replace(plan, epochs=3, **changes)
    whole = training(plan)
    expected = list(seen.losses)
    seen.losses.clear()
    stop = expected[len(expected) // 2][0] + 1
    assert stop % ((expected[-1][0] + 1) // plan.epochs)
    stopped_after(stop)
    with pytest.raises(KeyboardInterrupt):
        training(plan, out=tmp_path / "run")
    (kept,) = checkpoints_in(tmp_path / "run" / "checkpoints")
    assert kept.name == f"checkpoint-{stop}"
    again = training(plan, out=tmp_path / "run", resume=True)
    assert seen.losses == expected
    assert seen.worst_frame < 1e-5
    assert again.recipe == whole.recipe
    assert same_tensors(again.recipe, whole.recipe)
    assert figures(again) == figures(whole)


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox"])
def test_other_families_go_on_to_the_last_bit_too(
    training: Any, tiny: Any, seen: Any, stopped_after: Any, figures: Any, plan: TrainPlan, tmp_path: Path, family: str
) -> None:
    drops = {"gpt2": {"attn_pdrop": 0.1, "resid_pdrop": 0.1, "embd_pdrop": 0.1}, "gpt_neox": {"hidden_dropout": 0.1}}
    plan = dataclasses.replace(plan, epochs=2)
    whole = training(plan, model=tiny(family, **drops[family]))
    expected = list(seen.losses)
    seen.losses.clear()
    stopped_after(7)
    with pytest.raises(KeyboardInterrupt):
        training(plan, model=tiny(family, **drops[family]), out=tmp_path / "run")
    again = training(plan, model=tiny(family, **drops[family]), out=tmp_path / "run", resume=True)
    assert seen.losses == expected
    assert (figures(again), again.recipe) == (figures(whole), whole.recipe)


def test_several_sittings_are_as_good_as_one(
    training: Any,
    whole: Any,
    seen: Any,
    figures: Any,
    plan: TrainPlan,
    tmp_path: Path,
    stopped_after: Any,
) -> None:
    plan = dataclasses.replace(plan, dropout=0.1)
    expected = whole(plan)
    for sitting, stop in enumerate((1, 4, 7, STEPS_OF_EPOCH, 12, 5)):
        stopped_after(stop)
        with pytest.raises(KeyboardInterrupt):
            training(plan, out=tmp_path / "run", resume=sitting > 0)
    assert seen.losses == list(expected.losses[: len(seen.losses)])
    assert len(seen.losses) == 1 + 4 + 7 + 12 + 12 + 5
    assert seen.epochs == [1, 2, 3]
    again = training(plan, out=tmp_path / "run", resume=True)
    assert seen.losses == list(expected.losses)
    assert (figures(again), again.recipe) == (figures(expected.outcome), expected.outcome.recipe)
    log = (tmp_path / "run" / "log.txt").read_text()
    assert log.count("going on from step") == 6
    assert "going on from step 24, in epoch 3" in log


@pytest.mark.parametrize("epoch", [1, 4])
def test_a_training_stopped_at_an_epochs_last_step_has_scored_it(
    training: Any, whole: Any, seen: Any, stopped_after: Any, figures: Any, plan: TrainPlan, tmp_path: Path, epoch: int
) -> None:
    expected = whole(plan)
    stopped_after(epoch * STEPS_OF_EPOCH)
    with pytest.raises(KeyboardInterrupt):
        training(plan, out=tmp_path / "run")
    assert seen.epochs == list(range(1, epoch + 1))
    again = training(plan, out=tmp_path / "run", resume=True)
    assert seen.epochs == [1, 2, 3, 4]
    assert (figures(again), again.recipe) == (figures(expected.outcome), expected.outcome.recipe)


@pytest.mark.parametrize("moment", ["trial", "best", "checkpoint"])
def test_a_training_that_dies_between_an_epochs_score_and_its_checkpoint_goes_on(
    training: Any,
    whole: Any,
    figures: Any,
    plan: TrainPlan,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    moment: str,
) -> None:
    """The epoch is trained again and its trial is not written twice."""
    expected = whole(plan)
    with monkeypatch.context() as patch:
        calls: list[int] = []

        def die(real: Callable[..., Any], *, after: bool) -> Callable[..., Any]:
            def dying(*positional: Any, **named: Any) -> Any:
                calls.append(1)
                if len(calls) == 3 and not after:
                    raise KeyboardInterrupt
                found = real(*positional, **named)
                if len(calls) == 3:
                    raise KeyboardInterrupt
                return found

            return dying

        if moment == "trial":
            patch.setattr(Claim, "finish", die(Claim.finish, after=True))
        elif moment == "best":
            patch.setattr("strop.training.watch.replacing_folder", die(replacing_folder, after=False))
        else:
            patch.setattr(
                InterventionCheckpoints, "_save_checkpoint", die(InterventionCheckpoints._save_checkpoint, after=False)
            )
        with pytest.raises(KeyboardInterrupt):
            training(plan, out=tmp_path / "run")
    again = training(plan, out=tmp_path / "run", resume=True)
    assert (figures(again), again.recipe) == (figures(expected.outcome), expected.outcome.recipe)
    run = json.loads((tmp_path / "run" / "config.json").read_text())["run"]
    study = Study(f"sqlite:///{tmp_path / 'run' / 'study.db'}", name=f"train-{run}")
    assert study.trials() == again.trials
    assert [(trial.key.method, dict(trial.key.candidate)) for trial in again.trials] == [
        ("base", {}),
        *(("loreft", {"epoch": epoch}) for epoch in (1, 2, 3, 4)),
    ]
    assert study.unfinished() == ()


def test_a_training_that_dies_while_it_is_measured_trains_no_more(
    training: Any, figures: Any, plan: TrainPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither where all epochs are over nor where the patience is."""
    patient = dataclasses.replace(plan, epochs=3)
    impatient = dataclasses.replace(plan, epochs=9, patience=1, learning_rate=0.3)
    for name, given in (("all", patient), ("patience", impatient)):
        whole = training(given)
        with monkeypatch.context() as patch:
            patch.setattr(CONDUCT, "prove", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                training(given, out=tmp_path / name)
        with monkeypatch.context() as patch:
            patch.setattr(EditTrainer, "compute_loss", lambda *_, **__: pytest.fail("it trained again"))
            again = training(given, out=tmp_path / name, resume=True)
        assert (figures(again), again.recipe) == (figures(whole), whole.recipe)
        assert len(whole.trials) < 10


KILLED = """
import sys, os, signal
sys.path[:0] = [{tests!r}]
import torch
torch.set_num_threads(1)
from conftest import make_tiny
from transformers import AutoTokenizer
from strop.proving import RunOptions
from strop.tasks import load_task
from strop.training import TrainPlan, train
from strop.interventions import Positions
from strop.training.trainer import EditTrainer
compute, done = EditTrainer.compute_loss, []
def computing(self, *positional, **named):
    done.append(1)
    if len(done) == 31:
        os.kill(os.getpid(), signal.SIGKILL)
    return compute(self, *positional, **named)
EditTrainer.compute_loss = computing
plan = TrainPlan(rank=4, layers=(1, 2), positions=Positions(1, 1), epochs=4, batch_size=4, accumulate=1,
    learning_rate=0.02, init="paper", dropout=0.1, keep_base=0)
train(make_tiny("llama"), AutoTokenizer.from_pretrained({tokenizer!r}), load_task({task!r}), plan, RunOptions(out={out!r}))
"""


def test_a_training_killed_goes_on_from_the_last_epoch(
    training: Any,
    whole: Any,
    seen: Any,
    figures: Any,
    plan: TrainPlan,
    tmp_path: Path,
    written_task: Any,
    tiny_folder: Path,
    warm_python: StartWarm,
) -> None:
    plan = dataclasses.replace(plan, dropout=0.1)
    expected = whole(plan)
    code = KILLED.format(
        tests=str(Path(__file__).parents[1]),
        tokenizer=str(tiny_folder),
        task=str(written_task()),
        out=str(tmp_path / "run"),
    )
    killed = warm_python(code)
    _, err = killed.communicate()
    assert killed.returncode == -signal.SIGKILL, err
    partial = tmp_path / "run" / "checkpoints" / ".checkpoint-36.abcd1234.partial"
    partial.mkdir()
    (partial / "recipe.json").write_text("{")
    again = training(plan, out=tmp_path / "run", resume=True)
    assert seen.losses == list(expected.losses[2 * STEPS_OF_EPOCH :])
    assert (figures(again), again.recipe) == (figures(expected.outcome), expected.outcome.recipe)
    assert not partial.exists()


def test_ctrl_c_stops_after_the_step_and_is_not_left_in_the_way(
    training: Any, seen: Any, plan: TrainPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compute = EditTrainer.compute_loss

    def computing(self: EditTrainer, *positional: Any, **named: Any) -> Any:
        if self.state.global_step == 5:
            os.kill(os.getpid(), signal.SIGINT)
        return compute(self, *positional, **named)

    monkeypatch.setattr(EditTrainer, "compute_loss", computing)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        training(plan, out=tmp_path / "run")
    assert signal.getsignal(signal.SIGINT) is before
    assert seen.losses[-1][0] == 5
    assert [path.name for path in checkpoints_in(tmp_path / "run" / "checkpoints")] == ["checkpoint-6"]


def test_a_second_ctrl_c_stops_at_once(
    training: Any, plan: TrainPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def computing(self: EditTrainer, *_: Any, **__: Any) -> Any:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
        pytest.fail("it went on")

    monkeypatch.setattr(EditTrainer, "compute_loss", computing)
    with pytest.raises(KeyboardInterrupt):
        training(plan, out=tmp_path / "run")
    assert not checkpoints_in(tmp_path / "run" / "checkpoints")


def test_the_prefix_is_read_again_to_the_last_bit(
    training: Any, seen: Any, stopped_after: Any, plan: TrainPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[PrefixStates] = []
    real = PrefixStates.read

    def reading(*positional: Any, **named: Any) -> PrefixStates:
        read.append(real(*positional, **named))
        return read[-1]

    monkeypatch.setattr(PrefixStates, "read", reading)
    stopped_after(5)
    with pytest.raises(KeyboardInterrupt):
        training(plan, out=tmp_path / "run")
    training(plan, out=tmp_path / "run", resume=True)
    first, second = read
    assert all(torch.equal(first._states[index], second._states[index]) for index in range(48))


def test_a_finished_run_is_read_back(training: Any, plan: TrainPlan, tmp_path: Path, monkeypatch: Any) -> None:
    found = training(plan, out=tmp_path / "run")
    monkeypatch.setattr(EditTrainer, "compute_loss", lambda *_, **__: pytest.fail("it trained again"))
    again = training(plan, out=tmp_path / "run", resume=True)
    assert (again.result, again.recipe) == (found.result, found.recipe)


def test_other_settings_are_refused_with_the_first_that_differs(
    training: Any, stopped_after: Any, plan: TrainPlan, tmp_path: Path
) -> None:
    stopped_after(3)
    with pytest.raises(KeyboardInterrupt):
        training(plan, out=tmp_path / "run")
    cases: list[tuple[dict[str, Any], str]] = [
        ({"learning_rate": 0.01}, r"plan\.learning_rate = 0\.02, and now it is 0\.01"),
        ({"rank": 2}, r"plan\.rank = 4, and now it is 2"),
        ({"layers": (1,)}, r"plan\.layers = \[1, 2\], and now it is \[1\]"),
        ({"dropout": 0.1, "seed": 1}, r"plan\.dropout = 0\.0, and now it is 0\.1"),
    ]
    for changes, said in cases:
        with pytest.raises(strop.StropError, match=f"began with {said}: resume with the same settings"):
            training(dataclasses.replace(plan, **changes), out=tmp_path / "run", resume=True)
    with pytest.raises(strop.StropError, match="holds a run that was interrupted: go on with it by --resume"):
        training(plan, out=tmp_path / "run")


def test_half_written_checkpoints_are_left_aside(
    training: Any, whole: Any, stopped_after: Any, figures: Any, plan: TrainPlan, tmp_path: Path
) -> None:
    expected = whole(plan)
    stopped_after(STEPS_OF_EPOCH + 3)
    with pytest.raises(KeyboardInterrupt):
        training(plan, out=tmp_path / "run")
    folder = tmp_path / "run" / "checkpoints"
    (kept,) = checkpoints_in(folder)
    stateless = folder / "checkpoint-30"
    shutil.copytree(kept, stateless)
    (stateless / "trainer_state.json").unlink()
    (folder / "checkpoint-20").mkdir()
    (folder / "checkpoint-old").mkdir()
    shutil.copy(kept / "trainer_state.json", folder / "checkpoint-old")
    assert checkpoints_in(folder) == [kept]
    again = training(plan, out=tmp_path / "run", resume=True)
    assert (figures(again), again.recipe) == (figures(expected.outcome), expected.outcome.recipe)


def test_an_epochs_schedule_is_that_of_the_whole_training(training: Any, plan: TrainPlan, tmp_path: Path) -> None:
    """The log tells the learning rate as it fell."""
    training(plan, out=tmp_path / "run")
    lines = [line for line in (tmp_path / "run" / "log.txt").read_text().splitlines() if "learning rate" in line]
    rates = [float(line.rpartition(" ")[2]) for line in lines]
    assert len(rates) == 4
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < 0.005
