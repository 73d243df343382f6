"""What edits of hidden states must do beside that: weights stay, hooks of others survive, copies live alone."""

import copy
import gc
import pickle
import weakref
from typing import Any

import pytest
import torch
from tests.fixtures.every_method import (
    EDITS,
    IDS,
    SITES,
    STATE_EDITS,
    AnyEdit,
    Tiny,
    applied,
    assert_restored,
    attached,
    every_model,
    every_state_method,
    learning,
    logits,
    places,
    snapshot,
)
from torch import Tensor

from strop.errors import InterventionError
from strop.interventions import (
    LowRankEdit,
    attachments_of,
    prompt_lengths,
)


@every_model
@every_state_method
def test_an_edit_of_states_leaves_every_weight_as_it_is(edit: AnyEdit, model_type: str, tiny: Tiny) -> None:
    model = tiny(model_type)
    before, where = snapshot(model), places(model)
    with applied(model, [edit(site) for site in SITES]):
        assert places(model) == where
        after = model.state_dict()
        assert list(after) == list(before)
        assert all(torch.equal(after[name], before[name]) for name in before)
        logits(model)
        assert all(torch.equal(after[name], before[name]) for name in before)


@every_state_method
def test_a_trainable_edit_is_part_of_the_model_until_it_is_taken_off(edit: AnyEdit, tiny: Tiny) -> None:
    model = tiny("llama")
    model.lm_head.weight.requires_grad_(False)
    asking = learning(model)
    before, where = snapshot(model), places(model)
    first = attached(model, [edit(SITES[0])], trainable=True)
    earlier = {name for name in dict(model.named_parameters()) if name not in before}
    assert learning(model) == earlier
    second = attached(model, [edit(SITES[1]), edit(SITES[2])], trainable=True)
    assert learning(model) == dict(model.named_parameters()).keys() - before.keys() - earlier  # the latest learns alone
    own = edit(SITES[0])
    assert isinstance(own, LowRankEdit)
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == 2 * own.parameter_count((32, 32))
    second.detach()
    assert learning(model) == earlier
    first.detach()
    assert_restored(model, before, where)
    assert learning(model) == asking


@pytest.mark.parametrize("trainable", [False, True])
def test_hooks_of_others_survive_attaching_running_and_detaching(trainable: bool, tiny: Tiny) -> None:
    model = tiny("llama")
    calls: list[str] = []
    hooked = {
        "model": model,
        "inner": model.model,
        "block": model.model.layers[0],
        "down": model.model.layers[2].mlp.down_proj,
    }
    handles = [
        handle
        for name, module in hooked.items()
        for handle in (
            module.register_forward_pre_hook(lambda *_, name=name: calls.append(f"before {name}")),
            module.register_forward_hook(lambda *_, name=name: calls.append(f"after {name}")),
        )
    ]
    logits(model)
    expected = list(calls)
    attachment = attached(model, [STATE_EDITS["loreft"](site) for site in SITES], trainable=trainable)
    for _ in range(2):
        calls.clear()
        logits(model)
        assert calls == expected
    attachment.detach()
    calls.clear()
    logits(model)
    assert calls == expected
    for handle in handles:
        handle.remove()
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_a_hook_of_others_sees_the_edited_states(tiny: Tiny) -> None:
    model = tiny("llama")
    seen: list[Tensor] = []
    model.model.layers[0].register_forward_hook(lambda _, arguments, output: seen.append(output))
    logits(model)
    with applied(model, [STATE_EDITS["loreft"](SITES[0])]):
        logits(model)
    assert (seen[0] != seen[1]).any(-1).nonzero()[:, 1].tolist() == [0, 1, 3, 4, 5]


def test_a_generate_someone_put_on_the_model_runs_and_is_put_back(tiny: Tiny) -> None:
    model = tiny("llama")
    calls: list[str] = []

    def theirs(*arguments: Any, **settings: Any) -> Tensor:
        calls.append("theirs")
        return type(model).generate(model, *arguments, **settings)

    model.generate = theirs
    with applied(model, [STATE_EDITS["loreft"](SITES[0])]):
        assert model.generate is not theirs
        edited = model.generate(IDS, max_new_tokens=4, do_sample=False)
    assert calls == ["theirs"]
    assert model.generate is theirs
    assert edited.shape == (1, 12)


@every_state_method
def test_a_deep_copy_is_edited_as_its_original_and_lives_on_alone(edit: AnyEdit, tiny: Tiny) -> None:
    model = tiny("gpt2")
    plain = logits(model)
    attachment = attached(model, [edit(site) for site in SITES])
    edited = logits(model)
    twin = copy.deepcopy(model)
    torch.testing.assert_close(logits(twin), edited, atol=0, rtol=0)
    attachment.detach()
    assert torch.equal(logits(model), plain)
    assert torch.equal(logits(twin), edited)
    written = twin.generate(IDS, attention_mask=torch.ones_like(IDS), max_new_tokens=3, do_sample=False)
    assert written.shape == (1, 11)


def test_a_deep_copy_of_a_model_that_learns_learns_alone(tiny: Tiny) -> None:
    model = tiny("gpt2")
    attached(model, [STATE_EDITS["loreft"](site) for site in SITES], trainable=True)
    twin = copy.deepcopy(model)
    with prompt_lengths([6]):
        twin(input_ids=IDS).logits.sum().backward()
    assert all(parameter.grad is not None for parameter in twin.parameters() if parameter.requires_grad)
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("trainable", [False, True])
def test_what_is_attached_to_a_deep_copy_comes_off_it_alone(trainable: bool, tiny: Tiny) -> None:
    model = tiny("gpt2")
    plain, before, where = logits(model), snapshot(model), places(model)
    both = [EDITS["rank_reduction"](SITES[1]), STATE_EDITS["loreft"](SITES[1])]
    attachment = attached(model, both, trainable=trainable)
    edited = logits(model)
    twin = copy.deepcopy(model)
    (of_twin,) = attachments_of(twin)
    assert of_twin is not attachment
    of_twin.detach()
    assert attachments_of(twin) == ()
    assert torch.equal(logits(twin), plain)
    assert not {name for name in vars(twin) if "strop" in name}
    assert torch.equal(logits(model), edited)
    attachment.detach()
    assert_restored(model, before, where)


def test_a_model_with_edited_states_is_not_pickled(tiny: Tiny) -> None:
    model = tiny("llama")
    attachment = attached(model, [STATE_EDITS["loreft"](SITES[1])])
    with pytest.raises(InterventionError, match="edits of hidden states, or .* cannot be pickled; detach them"):
        pickle.dumps(model)
    attachment.detach()
    assert torch.equal(logits(pickle.loads(pickle.dumps(model))), logits(model))


def test_a_pickled_model_has_its_edited_weights_for_its_own(tiny: Tiny) -> None:
    model = tiny("llama")
    attached(model, [EDITS["rank_reduction"](SITES[1])])
    loaded = pickle.loads(pickle.dumps(model))
    assert torch.equal(logits(loaded), logits(model))
    assert attachments_of(loaded) == ()
    other = attached(loaded, [EDITS["rank_reduction"](SITES[0])])
    other.detach()
    assert torch.equal(logits(loaded), logits(model))


def test_edits_of_weights_and_of_states_go_on_and_come_off_together(tiny: Tiny) -> None:
    model = tiny("gpt_neox")
    before, where, plain = snapshot(model), places(model), logits(model)
    both = [EDITS["rank_reduction"](SITES[1]), STATE_EDITS["loreft"](SITES[1])]
    with applied(model, both):
        together = logits(model)
    with applied(model, both[:1]), applied(model, both[1:]):
        assert torch.equal(logits(model), together)
    with applied(model, both[:1]):
        assert not torch.allclose(logits(model), together, atol=1e-3)
    assert torch.equal(logits(model), plain)
    assert_restored(model, before, where)


def test_an_edited_model_is_let_go_when_nothing_else_holds_it(tiny: Tiny) -> None:
    model = tiny("llama")
    gone = weakref.ref(model)
    attachment = attached(model, [STATE_EDITS["loreft"](SITES[0])])
    logits(model)
    del model
    gc.collect()
    assert gone() is None
    attachment.detach()
