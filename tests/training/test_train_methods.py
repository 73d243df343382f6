"""Training takes either kind: a learned edit of weights and one of hidden states, of methods the library does not know."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.fixtures.toy_methods import Nudge, Rescale

from strop.anatomy import MatrixType, StreamSite, WeightSite
from strop.errors import UsageError
from strop.export import bake
from strop.interventions import RankReduction, attachments_of, methods, register_method
from strop.proving import RunOptions
from strop.recipe import Recipe, applied
from strop.tasks import Task, load_task
from strop.training import TrainPlan, train

SITES = [WeightSite(1, MatrixType.UP), WeightSite(1, MatrixType.VALUE), WeightSite(2, MatrixType.DOWN)]
SCALES = tuple(Rescale(site, count=8) for site in SITES)
PLAN = TrainPlan(edits=SCALES, epochs=6, learning_rate=0.05, batch_size=6, accumulate=1, keep_base=0)


@pytest.fixture(autouse=True)
def known_for_a_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(methods, "_BY_NAME", dict(methods._BY_NAME))
    for method in (Rescale, Nudge):
        register_method(method)


@pytest.fixture
def task(facts: Path) -> Task:
    return load_task(facts)


def bits_of(model: Any) -> dict[str, bytes]:
    return {name: tensor.numpy().tobytes() for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox"])
def test_a_learned_edit_of_weights_is_trained_saved_applied_and_baked_like_any_other(
    tiny: Callable[..., Any], small_tokenizer: Any, task: Task, tmp_path: Path, family: str
) -> None:
    model = tiny(family)
    before = bits_of(model)
    sites = [site for site in SITES if family == "llama" or site.matrix_type is not MatrixType.VALUE]
    plan = dataclasses.replace(PLAN, edits=tuple(Rescale(site, count=8) for site in sites))
    found = train(model, small_tokenizer, task, plan, RunOptions(out=tmp_path / "run"))
    assert bits_of(model) == before
    assert attachments_of(model) == ()
    assert found.result.edited["select"].loss < found.result.base["select"].loss
    assert {trial.key.method for trial in found.trials} == {"base", "rescale"}
    recipe = Recipe.load(tmp_path / "run" / "recipe")
    assert recipe == found.recipe
    assert found.result.edits == (f"{len(sites)} matrices rescaled",)
    ids = torch.tensor([small_tokenizer("The city of Lyon1 is in")["input_ids"]])
    with torch.no_grad(), applied(model, recipe):
        expected = model(ids).logits
    if family == "llama":  # whose config can hold the bias that the edit leaves behind
        bake(model, recipe, tmp_path / "baked")
        baked = type(model).from_pretrained(tmp_path / "baked")
        with torch.no_grad():
            torch.testing.assert_close(baked(ids).logits, expected)


def test_weights_and_states_learn_side_by_side_and_a_resumed_training_ends_as_an_undisturbed_one(
    tiny: Callable[..., Any], small_tokenizer: Any, task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = dataclasses.replace(PLAN, edits=(*SCALES, Nudge(StreamSite(2))), epochs=4)
    whole = train(tiny("llama"), small_tokenizer, task, plan)
    saved = []
    from strop.training.watch import Watch

    real = Watch.on_epoch_end

    def stopping(self: Watch, args: Any, state: Any, control: Any, **rest: Any) -> None:
        real(self, args, state, control, **rest)
        saved.append(state.epoch)
        if len(saved) == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Watch, "on_epoch_end", stopping)
        with pytest.raises(KeyboardInterrupt):
            train(tiny("llama"), small_tokenizer, task, plan, RunOptions(out=tmp_path / "run"))
    again = train(tiny("llama"), small_tokenizer, task, plan, RunOptions(out=tmp_path / "run", resume=True))
    assert again.recipe == whole.recipe
    assert again.result.edited == whole.result.edited


def test_what_lies_below_the_lowest_learned_weight_is_read_once_and_changes_nothing(
    tiny: Callable[..., Any], small_tokenizer: Any, task: Task
) -> None:
    plan = dataclasses.replace(PLAN, epochs=3)
    reused, whole = (
        train(tiny("llama"), small_tokenizer, task, dataclasses.replace(plan, prefix_budget_bytes=budget))
        for budget in (2**30, 0)
    )
    for mine, theirs in zip(reused.recipe.tensors, whole.recipe.tensors, strict=True):
        for name in mine:
            torch.testing.assert_close(mine[name], theirs[name], rtol=1e-3, atol=1e-4)


def test_a_start_stays_as_it_is_while_what_follows_it_learns(
    tiny: Callable[..., Any], small_tokenizer: Any, task: Task
) -> None:
    first = train(tiny("llama"), small_tokenizer, task, dataclasses.replace(PLAN, epochs=1)).recipe
    plan = dataclasses.replace(PLAN, edits=(Nudge(StreamSite(2)),), epochs=2)
    second = train(tiny("llama"), small_tokenizer, task, plan, RunOptions(after=first)).recipe
    assert second.interventions[: len(first.interventions)] == first.interventions
    for mine, theirs in zip(second.tensors, first.tensors, strict=False):
        for name in theirs:
            assert torch.equal(mine[name], theirs[name])


@pytest.mark.parametrize(
    ("edits", "said"),
    [
        ((), "edits names nothing that learns"),
        ((RankReduction(SITES[0], 0.5),), "rank_reduction learns nothing; find it by a search"),
    ],
)
def test_a_plan_whose_edits_learn_nothing_is_refused(edits: tuple[Any, ...], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        TrainPlan(edits=edits)
