"""Parts of a low-rank edit with a name: trained, switched and refused by it."""

import re
from typing import Any

import pytest
import torch
from tests.fixtures.low_rank import (
    IDS,
    PARTS,
    SIZE,
    Tiny,
    assert_orthonormal,
    edit_of,
    every_method,
    random_tensors,
    seeded,
    states_of,
)
from torch import Tensor

from strop.anatomy import StreamSite
from strop.errors import UsageError
from strop.interventions import (
    EditModule,
    attach_interventions,
    prompt_lengths,
)


@every_method
def test_subspaces_make_up_the_edit(method: str) -> None:
    whole, parted = edit_of(method, 6), edit_of(method, 6, subspaces=PARTS)
    tensors, states = random_tensors(whole), states_of()
    torch.testing.assert_close(EditModule(parted, tensors, SIZE)(states), EditModule(whole, tensors, SIZE)(states))
    kept = EditModule(parted, tensors, SIZE).tensors
    assert all(torch.equal(kept[name], tensors[name]) for name in tensors)


@every_method
@pytest.mark.parametrize(("name", "rows"), [("tone", slice(0, 2)), ("topic", slice(2, 5)), ("rest", slice(5, 6))])
def test_a_subspace_trained_alone_leaves_the_others_bits(method: str, name: str, rows: slice) -> None:
    edit = edit_of(method, 6, subspaces=PARTS)
    module = EditModule(edit, edit.initial_tensors((SIZE, SIZE), init="paper", generator=seeded()), SIZE)
    before, frame = module.tensors, module.basis_rows().detach()
    module.train_subspaces([name])
    assert (
        sum(p.numel() for p in module.parameters() if p.requires_grad)
        == edit.parameter_count((SIZE, SIZE)) * (rows.stop - rows.start) // 6
    )
    optimiser = torch.optim.AdamW(module.parameters(), lr=1e-2, weight_decay=0.1)
    for _ in range(5):
        optimiser.zero_grad()
        (module(states_of(dtype=torch.float32)) * torch.arange(float(SIZE))).sum().backward()
        optimiser.step()
    for tensor_name, now in module.tensors.items():
        moved = (now != before[tensor_name]).reshape(6, -1).any(1)
        assert moved.tolist() == [rows.start <= row < rows.stop for row in range(6)], tensor_name
    torch.testing.assert_close(module.basis_rows()[: rows.start], frame[: rows.start], atol=0, rtol=0)
    if edit.formula.orthonormal:
        assert_orthonormal(module.basis_rows().detach())


@every_method
@pytest.mark.parametrize("used", [[], ["tone"], ["topic"], ["rest", "tone"], ["tone", "topic", "rest"]])
def test_switching_subspaces_leaves_the_parts_that_are_off_out_of_the_sum(method: str, used: list[str]) -> None:
    edit = edit_of(method, 6, subspaces=PARTS)
    tensors, states = random_tensors(edit), states_of()
    module = EditModule(edit, tensors, SIZE)
    everything = module(states)
    module.use_subspaces(used)
    rows = [
        row for name, where in (("tone", (0, 1)), ("topic", (2, 3, 4)), ("rest", (5,))) if name in used for row in where
    ]
    basis = module.basis_rows()
    h, kept = states, basis[rows]
    value = torch.zeros(len(states), len(rows), dtype=torch.float64)
    if edit.formula.reads:
        value = value + h @ tensors["source"][rows].T
    value = value + tensors["bias"][rows]
    if edit.formula.subtracts:
        value = value - h @ kept.T
    torch.testing.assert_close(module(states), h + value @ kept)
    module.use_subspaces(None)
    assert torch.equal(module(states), everything)


def test_an_attachment_switches_the_subspaces_of_all_its_edits(tiny: Tiny) -> None:
    model = tiny("llama")
    edits = [edit_of(rank=6, subspaces=PARTS, site=StreamSite(layer)) for layer in range(2)]
    tensors = [random_tensors(edit, 32, seed=layer, dtype=torch.float32) for layer, edit in enumerate(edits)]

    def logits() -> Tensor:
        with torch.no_grad(), prompt_lengths([6]):
            return model(input_ids=IDS).logits

    plain = logits()
    attachment = attach_interventions(model, edits, tensors=tensors)
    edited = logits()
    attachment.use_subspaces([])
    assert torch.equal(logits(), plain)
    attachment.use_subspaces(["topic"])
    assert not torch.allclose(logits(), plain, atol=1e-3)
    assert not torch.allclose(logits(), edited, atol=1e-3)
    attachment.use_subspaces(None)
    assert torch.equal(logits(), edited)
    attachment.detach()


def test_a_subspace_that_is_not_there_is_refused_by_its_name() -> None:
    edit = edit_of(rank=6, subspaces=PARTS)
    module = EditModule(edit, random_tensors(edit), SIZE)
    with pytest.raises(UsageError, match="the edit has no subspace 'mood'; it has tone, topic, rest"):
        module.use_subspaces(["tone", "mood"])
    plain = EditModule(edit_of(), random_tensors(edit_of()), SIZE)
    with pytest.raises(UsageError, match="no subspace 'tone'; it has none"):
        plain.train_subspaces(["tone"])


@pytest.mark.parametrize(
    ("parts", "complaint"),
    [
        ((("a", 2),), r"\(a 2\) do not add up to the rank, 4"),
        ((("a", 2), ("a", 2)), "names of their own"),
        ((("a", 4), ("b", 0)), "ranks of 1 or more"),
        ((("", 4),), "names of their own"),
    ],
)
def test_subspaces_that_do_not_make_up_the_rank_are_refused(parts: Any, complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        edit_of(subspaces=parts)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"method": "reft"}, "'reft' is not a method of editing hidden states (loreft, direft"),
        ({"activation": "swish"}, "activation is one of linear, relu, gelu, silu, tanh, sigmoid, not 'swish'"),
        ({"method": "consreft", "activation": "relu"}, "consreft computes nothing from the hidden state"),
        ({"method": "lobireft", "activation": "gelu"}, "lobireft computes nothing from the hidden state"),
        ({"rank": 0}, "The rank of an edit is 1 or more, not 0"),
    ],
)
def test_an_edit_that_makes_no_sense_is_refused(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(UsageError, match=re.escape(complaint)):
        edit_of(**changes)


@every_method
def test_a_rank_above_the_hidden_size_is_refused_with_both(method: str) -> None:
    with pytest.raises(
        UsageError, match="rank 33 does not fit into hidden states of size 32; choose a rank of at most 32"
    ):
        edit_of(method, 33).initial_tensors((32, 32), init="paper")
