"""ReFT's formulas: each against the paper's equation in NumPy, its gradients, its beginnings, its learning."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.fixtures.low_rank import (
    BENT,
    CAN_BE_IDENTITY,
    KINDS,
    ORTHONORMAL,
    SIZE,
    assert_orthonormal,
    by_the_paper,
    edit_of,
    every_kind,
    every_method,
    law,
    random_tensors,
    seeded,
    states_of,
)
from torch import Tensor

from strop.anatomy import StreamSite
from strop.errors import DecompositionError, UsageError
from strop.interventions import (
    ACTIVATIONS,
    FORMULAS,
    EditModule,
)


@every_kind
@pytest.mark.parametrize("rank", [1, 4, SIZE])
def test_each_formula_is_the_papers(method: str, activation: str, rank: int) -> None:
    edit = edit_of(method, rank, activation=activation)
    tensors, states = random_tensors(edit), states_of()
    found = EditModule(edit, tensors, SIZE)(states)
    expected = by_the_paper(method, activation, tensors, states.numpy())
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-9, atol=1e-9)


@law
@given(st.integers(1, 6), st.integers(0, 20), st.integers(0, 9), st.integers(0, 2**20), st.sampled_from(KINDS))
def test_each_formula_holds_for_any_sizes(rank: int, more: int, tokens: int, seed: int, kind: tuple[str, str]) -> None:
    method, activation = kind
    edit = edit_of(method, rank, activation=activation)
    size = rank + 3 + more
    tensors, states = random_tensors(edit, size, seed=seed), states_of(tokens + 1, size)
    found = EditModule(edit, tensors, size)(states)
    expected = by_the_paper(method, activation, tensors, states.numpy())
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6, atol=1e-6)


def test_every_method_and_activation_of_the_paper_is_there() -> None:
    assert set(FORMULAS) == {"loreft", "direft", "noreft", "consreft", "lobireft", "orthonormal_direft"}
    assert set(BENT) == set(ACTIVATIONS)


@every_kind
def test_gradients_are_right_for_every_parameter_and_the_states(method: str, activation: str) -> None:
    edit = edit_of(method, 3, activation=activation)
    module = EditModule(edit, random_tensors(edit, 6), 6)
    module.train_subspaces(None)
    names = [name for name, _ in module.named_parameters()]
    values = [parameter.detach().clone().requires_grad_(True) for parameter in module.parameters()]
    states = states_of(2, 6).requires_grad_(True)

    def run(states: Tensor, *given: Tensor) -> Tensor:
        return torch.func.functional_call(module, dict(zip(names, given, strict=True)), (states,))

    assert torch.autograd.gradcheck(run, (states, *values))


# Beginnings


@pytest.mark.parametrize(("method", "activation"), CAN_BE_IDENTITY)
@pytest.mark.parametrize("size", [SIZE, 576])
def test_an_edit_that_begins_as_the_identity_changes_nothing(method: str, activation: str, size: int) -> None:
    edit = edit_of(method, 8, activation=activation)
    states = states_of(size=size, dtype=torch.float32)
    tensors = edit.initial_tensors((size, size), generator=seeded())
    assert torch.equal(EditModule(edit, tensors, size)(states), states)


@pytest.mark.parametrize(("method", "activation"), [kind for kind in KINDS if kind not in CAN_BE_IDENTITY])
def test_an_edit_that_cannot_begin_as_the_identity_says_why(method: str, activation: str) -> None:
    with pytest.raises(UsageError, match=rf"^{method} cannot begin as the identity, for .+; use init paper\.$"):
        edit_of(method, activation=activation).initial_tensors((SIZE, SIZE))


@pytest.mark.parametrize(("method", "activation"), CAN_BE_IDENTITY)
def test_an_edit_that_begins_as_the_identity_can_leave_it(method: str, activation: str) -> None:
    edit = edit_of(method, activation=activation)
    module = EditModule(edit, edit.initial_tensors((SIZE, SIZE), generator=seeded()), SIZE)
    module.train_subspaces(None)
    (module(states_of()) * torch.arange(float(SIZE))).sum().backward()
    reached = sum(float(p.grad.abs().sum()) for p in module.parameters() if p.grad is not None)
    assert reached > 0


@every_method
def test_the_papers_beginning_has_a_frame_and_the_rest_as_a_linear_layer(method: str) -> None:
    size, rank = 256, 32
    edit = edit_of(method, rank)
    tensors = edit.initial_tensors((size, size), init="paper", generator=seeded())
    assert set(tensors) == set(edit.formula.tensors)
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}
    bound = 1 / math.sqrt(size)
    if edit.formula.orthonormal:
        assert_orthonormal(tensors["basis"])
    uniform = [
        tensors[name] for name in ("source", *(() if edit.formula.orthonormal else ("basis",))) if name in tensors
    ]
    for tensor in uniform:
        assert float(tensor.abs().max()) <= bound
        assert float(tensor.abs().max()) > 0.99 * bound
        assert float(tensor.std()) == pytest.approx(bound / math.sqrt(3), rel=0.03)
        assert abs(float(tensor.mean())) < 0.05 * bound
    low, high = (-bound, bound) if edit.formula.reads else (0.0, 1.0)
    assert bool(((tensors["bias"] >= low) & (tensors["bias"] <= high)).all())
    assert float(tensors["bias"].max() - tensors["bias"].min()) > 0.7 * (high - low)


@every_method
def test_the_same_seed_begins_the_same_and_another_does_not(method: str) -> None:
    edit = edit_of(method)
    one, same, other = (edit.initial_tensors((SIZE, SIZE), init="paper", generator=seeded(seed)) for seed in (1, 1, 2))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not any(torch.equal(one[name], other[name]) for name in one)


# Learning


@pytest.mark.parametrize("method", ORTHONORMAL)
@pytest.mark.parametrize("rank", [1, 8, 32])
def test_the_frame_stays_orthonormal_after_every_step(method: str, rank: int) -> None:
    size = 64
    edit = edit_of(method, rank)
    module = EditModule(edit, edit.initial_tensors((size, size), init="paper", generator=seeded()), size)
    module.train_subspaces(None)
    optimiser = torch.optim.AdamW(module.parameters(), lr=4e-3, weight_decay=1e-3)
    states, wanted = states_of(16, size, dtype=torch.float32), states_of(17, size, dtype=torch.float32)[1:]
    begun = module.basis_rows().detach()
    losses = []
    for _ in range(50):
        optimiser.zero_grad()
        loss = (module(states) - wanted).square().mean()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
        assert_orthonormal(module.basis_rows().detach())
    assert losses[-1] < losses[0]
    assert not torch.allclose(module.basis_rows(), begun, atol=1e-3)


def test_a_frame_that_collapses_is_refused_and_not_guessed() -> None:
    edit = edit_of(rank=2)
    tensors = edit.initial_tensors((SIZE, SIZE))
    tensors["basis"][1] = tensors["basis"][0]
    with pytest.raises(DecompositionError, match="linearly dependent"):
        EditModule(edit, tensors, SIZE)(states_of())


@pytest.mark.parametrize(
    ("method", "rank", "size", "count"),
    [
        ("loreft", 8, 4096, 65_544),
        ("direft", 8, 4096, 65_544),
        ("noreft", 1, 10, 21),
        ("consreft", 8, 4096, 32_776),
        ("lobireft", 3, 10, 33),
        ("orthonormal_direft", 3, 10, 63),
    ],
)
def test_parameters_are_counted_as_they_are(method: str, rank: int, size: int, count: int) -> None:
    edit = edit_of(method, rank)
    assert edit.parameter_count((size, size)) == count
    module = EditModule(edit, edit.initial_tensors((size, size), init="paper"), size)
    assert sum(parameter.numel() for parameter in module.parameters()) == count


def test_the_papers_edits_of_a_model_of_seven_billion_learn_as_many_numbers_as_it_says() -> None:
    """Rank 8 in each of 32 layers of 4,096, tied: 0.031 % of 6.74 billion."""
    total = sum(edit_of("loreft", 8, site=StreamSite(layer)).parameter_count((4096, 4096)) for layer in range(32))
    assert total == 2_097_408
    assert round(100 * total / 6.74e9, 3) == 0.031
