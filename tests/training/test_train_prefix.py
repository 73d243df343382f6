"""What no edit changes is computed once; the losses are those of a training that computes it every time."""

import dataclasses
from collections import Counter
from typing import Any

import pytest
import torch

from strop.anatomy import Anatomy, Stream, StreamSite
from strop.scoring import Resources
from strop.training import TrainPlan
from strop.training.prefix_states import PrefixStates, worth_keeping

pytestmark = pytest.mark.thorough

EXAMPLES = 48
TOKEN_BYTES = 32 * 4


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> list[PrefixStates]:
    """All that trainings keep of their prefixes."""
    found: list[PrefixStates] = []
    real = PrefixStates.read

    def reading(*positional: Any, **named: Any) -> PrefixStates:
        found.append(real(*positional, **named))
        return found[-1]

    monkeypatch.setattr(PrefixStates, "read", reading)
    return found


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox"])
@pytest.mark.parametrize("layers", [(1,), (2,)])
def test_the_losses_are_those_of_the_whole_model(
    training: Any, tiny: Any, seen: Any, kept: list[Any], plan: TrainPlan, family: str, layers: tuple[int, ...]
) -> None:
    no_dropout = {"attn_pdrop": 0.0, "resid_pdrop": 0.0, "embd_pdrop": 0.0} if family == "gpt2" else {}
    plan = dataclasses.replace(plan, layers=layers, epochs=2)
    with_it = training(plan, model=tiny(family, **no_dropout))
    assert len(kept) == 1
    assert len(kept[0]._states) == EXAMPLES
    reused = [loss for _, loss in seen.losses]
    seen.losses.clear()
    without = training(dataclasses.replace(plan, prefix_budget_bytes=0), model=tiny(family, **no_dropout))
    assert len(kept) == 1
    assert reused == pytest.approx([loss for _, loss in seen.losses], rel=1e-4)
    for mine, theirs in zip(with_it.recipe.tensors, without.recipe.tensors, strict=True):
        for name in mine:
            torch.testing.assert_close(mine[name], theirs[name], rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("budget", [2**30, 0])
def test_blocks_below_the_lowest_edit_run_once(training: Any, tiny: Any, plan: TrainPlan, budget: int) -> None:
    model = tiny("llama")
    anatomy = Anatomy.of(model)
    calls: Counter[tuple[int, bool]] = Counter()
    for layer, block in enumerate(anatomy.blocks(model)):
        mlp = block.mlp  # a block that is skipped is called, and passes its input through
        mlp.register_forward_hook(lambda *_, layer=layer: calls.update([(layer, torch.is_grad_enabled())]))
    training(dataclasses.replace(plan, layers=(1,), epochs=3, prefix_budget_bytes=budget), model=model)
    steps = 3 * EXAMPLES // 4
    assert calls[2, True] == steps
    assert calls[0, True] == calls[1, True] == (0 if budget else steps)  # a block's output is edited after the block


def test_a_budget_that_does_not_hold_all_keeps_the_shortest(
    training: Any, seen: Any, kept: list[Any], plan: TrainPlan
) -> None:
    plan = dataclasses.replace(plan, layers=(2,), epochs=2)
    budget = EXAMPLES // 2 * 6 * TOKEN_BYTES
    training(dataclasses.replace(plan, prefix_budget_bytes=budget))
    (some,) = kept
    assert 4 < len(some._states) < EXAMPLES
    held = sum(state.numel() * state.element_size() for state in some._states.values())
    assert held <= budget
    lengths = [state.shape[0] for state in some._states.values()]
    assert lengths == sorted(lengths)
    partly = [loss for _, loss in seen.losses]
    seen.losses.clear()
    training(dataclasses.replace(plan, prefix_budget_bytes=0))
    assert partly == pytest.approx([loss for _, loss in seen.losses], rel=1e-4)


def test_states_are_reused_only_where_they_are_the_same_in_every_epoch(
    training: Any, tiny: Any, kept: list[Any], plan: TrainPlan
) -> None:
    quiet = {"attn_pdrop": 0.0, "resid_pdrop": 0.0, "embd_pdrop": 0.0}
    for name in quiet:
        drops = tiny("gpt2", **{**quiet, name: 0.1})
        assert not worth_keeping(drops, lowest=StreamSite(1), epochs=2)
        training(dataclasses.replace(plan, epochs=2), model=drops)
    assert kept == []
    llama = tiny("llama")
    assert not worth_keeping(llama, lowest=StreamSite(0, Stream.MLP), epochs=2)
    assert not worth_keeping(llama, lowest=StreamSite(1), epochs=1)
    assert worth_keeping(llama, lowest=StreamSite(1), epochs=2)
    assert not worth_keeping(tiny("llama", attention_dropout=0.1), lowest=StreamSite(1), epochs=2)
    assert worth_keeping(
        tiny("gpt2", **quiet), lowest=StreamSite(1), epochs=2
    )  # although it has a dropout for a head it lacks
    assert worth_keeping(tiny("gpt_neox"), lowest=StreamSite(1), epochs=2)


def test_an_edit_below_the_prefix_of_a_recipe_to_begin_with_is_in_what_is_reused(
    training: Any, tiny: Any, seen: Any, kept: list[Any], plan: TrainPlan
) -> None:
    first = training(dataclasses.replace(plan, layers=(0,), epochs=1))
    seen.losses.clear()
    plan = dataclasses.replace(plan, layers=(2,), epochs=2)
    training(plan, after=first.recipe)
    assert len(kept) == 1
    reused = [loss for _, loss in seen.losses]
    seen.losses.clear()
    training(dataclasses.replace(plan, prefix_budget_bytes=0), after=first.recipe)
    assert reused == pytest.approx([loss for _, loss in seen.losses], rel=1e-4)


def test_the_select_split_is_scored_from_the_lowest_edit_as_from_the_embeddings(
    training: Any, whole: Any, plan: TrainPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    reused = whole(plan).outcome
    monkeypatch.setattr("strop.scoring.resources.CPU", Resources(state_bytes=1))
    computed = training(plan)
    for one, two in zip(reused.trials, computed.trials, strict=True):
        assert one.accuracy == two.accuracy
        assert one.loss == pytest.approx(two.loss, rel=1e-5)


def test_beyond_the_budget_only_the_missing_rows_are_read_again(
    training: Any, tiny: Any, seen: Any, kept: list[Any], plan: TrainPlan
) -> None:
    training(
        dataclasses.replace(plan, epochs=1, prefix_budget_bytes=0), model=tiny("llama")
    )  # what it writes itself is kept
    model = tiny("llama")
    rows = Counter[bool]()
    block = Anatomy.of(model).blocks(model)[0]
    block.mlp.register_forward_hook(lambda _, inputs, __: rows.update({torch.is_grad_enabled(): len(inputs[0])}))
    plan = dataclasses.replace(plan, layers=(1,), epochs=2)
    training(dataclasses.replace(plan, prefix_budget_bytes=EXAMPLES // 2 * 6 * TOKEN_BYTES), model=model)
    (some,) = kept
    partly, unkept = rows[False], EXAMPLES - len(some._states)
    assert rows[True] == 0  # what no edit changes is never read for gradients
    rows.clear()
    training(dataclasses.replace(plan, prefix_budget_bytes=2**30), model=model)
    assert 0 < unkept < EXAMPLES
    assert partly - rows[False] == plan.epochs * unkept - unkept
