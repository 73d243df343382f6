"""Attachments that stay on for longer: their order, their end, and what they keep alive."""

import gc
import weakref
from collections.abc import Callable

import pytest
import torch
from tests.fixtures.every_method import (
    SITES,
    T,
    Tiny,
    assert_restored,
    places,
    snapshot,
)
from torch import nn

from strop.anatomy import MatrixType, WeightSite
from strop.errors import InterventionError, SiteError
from strop.interventions import (
    RankReduction,
    applied_interventions,
    attach_interventions,
    attachments_of,
)


def test_attachments_come_off_in_the_order_opposite_to_the_one_they_were_put_on(tiny: Tiny) -> None:
    model = tiny("llama")
    before, where = snapshot(model), places(model)
    first = attach_interventions(model, [RankReduction(SITES[1], rank_fraction=0.5)])
    half = snapshot(model)
    second = attach_interventions(model, [RankReduction(SITES[1], rank_fraction=0.1)])
    assert attachments_of(model) == (first, second)
    with pytest.raises(InterventionError, match="attached later; detach that one first"):
        first.detach()
    second.detach()
    assert all(torch.equal(tensor, half[name]) for name, tensor in model.state_dict().items())
    first.detach()
    assert_restored(model, before, where)


def test_detaching_twice_is_detaching_once(tiny: Tiny) -> None:
    model = tiny("llama")
    before, where = snapshot(model), places(model)
    attachment = attach_interventions(model, [RankReduction(SITES[0], rank_fraction=0.5)])
    attachment.detach()
    attachment.detach()
    assert_restored(model, before, where)
    other = attach_interventions(model, [RankReduction(SITES[0], rank_fraction=0.5)])
    attachment.detach()
    assert attachments_of(model) == (other,)


def test_detaching_inside_a_with_block_is_harmless(tiny: Tiny) -> None:
    model = tiny("llama")
    before, where = snapshot(model), places(model)
    with applied_interventions(model, [RankReduction(SITES[0], rank_fraction=0.5)]):
        attachments_of(model)[-1].detach()
    assert_restored(model, before, where)


def test_a_failing_attachment_leaves_the_earlier_one_on(tiny: Tiny) -> None:
    model = tiny("llama")
    before, where = snapshot(model), places(model)
    first = attach_interventions(model, [RankReduction(SITES[1], rank_fraction=0.5)])
    half, half_places = snapshot(model), places(model)
    with pytest.raises(SiteError):
        attach_interventions(
            model, [RankReduction(SITES[1], rank_fraction=0.1), RankReduction(WeightSite(7, T.UP), rank_fraction=0.1)]
        )
    assert attachments_of(model) == (first,)
    assert all(torch.equal(tensor, half[name]) for name, tensor in model.state_dict().items())
    assert places(model) == half_places
    first.detach()
    assert_restored(model, before, where)


def test_an_attachment_does_not_keep_its_model_alive(tiny: Tiny) -> None:
    model = tiny("llama")
    gone = weakref.ref(model)
    attachment = attach_interventions(model, [RankReduction(SITES[0], rank_fraction=0.5)])
    del model
    gc.collect()
    assert gone() is None
    attachment.detach()


def test_tensors_for_another_number_of_interventions_are_refused_and_nothing_stays(tiny: Tiny) -> None:
    model = tiny("llama")
    before, where = snapshot(model), places(model)
    with pytest.raises(ValueError, match="shorter"):
        attach_interventions(model, [RankReduction(site, rank_fraction=0.5) for site in SITES], tensors=[{}, {}])
    assert_restored(model, before, where)


def test_detaching_follows_a_model_that_was_cast_meanwhile(tiny: Callable[..., nn.Module]) -> None:
    model = tiny("llama")
    expected = tiny("llama").to(torch.bfloat16).state_dict()
    attachment = attach_interventions(model, [RankReduction(WeightSite(1, MatrixType.UP), 0.25)])
    model.to(torch.bfloat16)
    attachment.detach()
    for name, tensor in model.state_dict().items():
        assert tensor.dtype == torch.bfloat16
        assert torch.equal(tensor, expected[name]), name
