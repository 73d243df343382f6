"""Edits of hidden states of images: which patches they touch."""

from typing import Any

import pytest
import torch
from tests.fixtures.images import make_vit

import strop
from strop import LowRankEdit, Positions, StreamSite
from strop.errors import InterventionError

PIXELS = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def states_after(model: Any, layer: int) -> torch.Tensor:
    """Return what enters the block behind a layer, (images, tokens, hidden)."""
    seen: list[torch.Tensor] = []
    handle = model.vit.layers[layer + 1].register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    with torch.no_grad():
        model(pixel_values=PIXELS)
    handle.remove()
    return seen[0]


@pytest.mark.parametrize(
    ("positions", "touched"),
    [("f1", [0]), ("l2", [15, 16]), ("f1+l1", [0, 16]), ("all", list(range(17))), ("prompt", list(range(17)))],
)
def test_positions_count_the_class_token_first_and_then_patches(positions: str, touched: list[int]) -> None:
    model = make_vit()
    edit = LowRankEdit(StreamSite(0), "loreft", rank=2, positions=Positions.parse(positions))
    drawn = edit.initial_tensors((16, 16), init="paper", generator=torch.Generator().manual_seed(0))
    recipe = strop.Recipe.of(model, [edit], tensors=[drawn])
    before = states_after(model, 0)
    with strop.applied(model, recipe):
        after = states_after(model, 0)
    changed = (after - before).abs().amax(-1) > 0
    assert changed.all(0).nonzero()[:, 0].tolist() == changed.any(0).nonzero()[:, 0].tolist() == touched
    torch.testing.assert_close(states_after(model, 0), before)


def test_a_block_called_on_other_tokens_than_whole_images_is_refused() -> None:
    model = make_vit()
    edit = LowRankEdit(StreamSite(0), "loreft", rank=2, positions=Positions(first=1))
    recipe = strop.Recipe.of(model, [edit], tensors=[edit.initial_tensors((16, 16))])
    handle = model.vit.layers[0].register_forward_pre_hook(lambda _, arguments: (arguments[0].flatten(0, 1)[None],))
    with strop.applied(model, recipe), pytest.raises(InterventionError, match="are not those of 3 whole images"):
        model(pixel_values=PIXELS)
    handle.remove()


def test_blocks_that_are_computed_again_give_the_same_gradients() -> None:
    model = make_vit().train()
    edit = LowRankEdit(StreamSite(0), "loreft", rank=2, positions=Positions(first=1, last=2))
    drawn = edit.initial_tensors((16, 16), init="paper", generator=torch.Generator().manual_seed(0))
    attachment = strop.attach(model, strop.Recipe.of(model, [edit], tensors=[drawn]), trainable=True)
    parameters = list(attachment.modules[0].parameters())
    found = []
    for again in (False, True):
        if again:
            enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
            enable({"use_reentrant": False})
        loss = model(pixel_values=PIXELS, labels=torch.tensor([0, 1, 2])).loss
        found.append(torch.autograd.grad(loss, parameters))
    attachment.detach()
    for plain, computed_again in zip(*found, strict=True):
        assert bool(plain.any())
        torch.testing.assert_close(computed_again, plain)
