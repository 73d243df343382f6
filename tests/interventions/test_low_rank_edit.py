"""ReFT's formulas: each against the paper's equation in NumPy, its gradients, its beginnings, its subspaces, its precision."""

import dataclasses
import json
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn

from strop.anatomy import Stream, StreamSite
from strop.errors import DecompositionError, InterventionError, RecipeError, UsageError
from strop.interventions import (
    ACTIVATIONS,
    FORMULAS,
    EditModule,
    LowRankEdit,
    Positions,
    attach_interventions,
    intervention_from_json,
    prompt_lengths,
)
from strop.recipe import Recipe, applied

Tiny = Callable[..., nn.Module]
Array = NDArray[np.float64]

law = settings(deadline=None, max_examples=25, database=None)
SIZE = 24
IDS = torch.arange(1, 10)[None]
READING = [method for method, formula in FORMULAS.items() if formula.reads]
ORTHONORMAL = [method for method, formula in FORMULAS.items() if formula.orthonormal]
KINDS = [
    (method, activation)
    for method, formula in FORMULAS.items()
    for activation in (ACTIVATIONS if formula.reads else ("linear",))
]
CAN_BE_IDENTITY = [
    (method, activation)
    for method, activation in KINDS
    if (method in ("loreft", "noreft") and activation == "linear")
    or (method in ("direft", "orthonormal_direft") and activation not in ("relu", "sigmoid"))
    or method == "lobireft"
]
every_method = pytest.mark.parametrize("method", FORMULAS)
every_kind = pytest.mark.parametrize(("method", "activation"), KINDS)


def edit_of(method: str = "loreft", rank: int = 4, **changes: Any) -> LowRankEdit:
    settings = {"site": StreamSite(1), "positions": Positions.parse("f2+l2"), **changes}
    return LowRankEdit(method=method, rank=rank, **settings)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_tensors(edit: LowRankEdit, size: int = SIZE, *, seed: int = 0, dtype: torch.dtype = torch.float64) -> Any:
    """Numbers as training might leave them: no frame, no small bound."""
    generator = seeded(seed)
    shapes = {"basis": (edit.rank, size), "source": (edit.rank, size), "bias": (edit.rank,)}
    return {name: torch.randn(*shapes[name], generator=generator, dtype=dtype) for name in edit.formula.tensors}


def states_of(tokens: int = 7, size: int = SIZE, *, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(tokens, size, generator=seeded(9), dtype=dtype)


BENT: Mapping[str, Callable[[Array], Array]] = {
    "linear": lambda x: x,
    "relu": lambda x: np.maximum(x, 0),
    "gelu": lambda x: x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2))),
    "silu": lambda x: x / (1 + np.exp(-x)),
    "tanh": np.tanh,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
}


def gram_schmidt(raw: Array) -> Array:
    rows: list[Array] = []
    for row in raw:
        rest = row.copy()
        for earlier in rows * 2:
            rest -= (rest @ earlier) * earlier
        rows.append(rest / np.linalg.norm(rest))
    return np.stack(rows)


def by_the_paper(method: str, activation: str, tensors: Mapping[str, Tensor], h: Array) -> Array:
    """arXiv 2404.03592: equations 1 and 2 of section 3.2, and the formulas of Table 17; one hidden state a row."""
    given = {name: tensor.double().numpy() for name, tensor in tensors.items()}
    act = BENT[activation]
    W, b = given.get("source", np.zeros(0)), given["bias"]
    R, W2 = gram_schmidt(given["basis"]), given["basis"]
    edited = {
        "loreft": lambda x: x + R.T @ (act(W @ x + b) - R @ x),
        "direft": lambda x: x + W2.T @ act(W @ x + b),
        "noreft": lambda x: x + W2.T @ (act(W @ x + b) - W2 @ x),
        "consreft": lambda x: x + R.T @ (b - R @ x),
        "lobireft": lambda x: x + R.T @ b,
        "orthonormal_direft": lambda x: x + R.T @ act(W @ x + b),
    }[method]
    return np.stack([edited(row) for row in h])


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


def assert_orthonormal(rows: Tensor, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(rows @ rows.T, torch.eye(len(rows), dtype=rows.dtype), atol=tolerance, rtol=0)


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


# Subspaces

PARTS = (("tone", 2), ("topic", 3), ("rest", 1))


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


# Precision


@pytest.mark.parametrize("cast", [lambda m: m.to(torch.bfloat16), lambda m: m.half(), lambda m: m.bfloat16()])
def test_parameters_stay_in_float32_when_the_model_is_cast(cast: Callable[[nn.Module], nn.Module], tiny: Tiny) -> None:
    model, edit = tiny("llama"), edit_of()
    tensors = random_tensors(edit, 32, dtype=torch.float32)
    attachment = attach_interventions(model, [edit], tensors=[tensors], trainable=True)
    (module,) = attachment.edits
    before = {name: id(parameter) for name, parameter in module.named_parameters()}
    cast(model)
    assert model.dtype != torch.float32
    assert {parameter.dtype for parameter in module.parameters()} == {torch.float32}
    assert {name: id(parameter) for name, parameter in module.named_parameters()} == before
    assert all(torch.equal(kept, tensors[name]) for name, kept in module.tensors.items())
    with prompt_lengths([6]):
        output = model(input_ids=IDS).logits
    assert output.dtype == model.dtype
    output.float().square().mean().backward()
    assert all(
        parameter.grad is not None and parameter.grad.dtype == torch.float32 for parameter in module.parameters()
    )
    attachment.detach()


@every_method
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_states_keep_their_dtype_and_the_edit_is_computed_in_float32(method: str, dtype: torch.dtype) -> None:
    edit = edit_of(method)
    module = EditModule(edit, random_tensors(edit, dtype=torch.float32), SIZE)
    states = states_of().to(dtype)
    found = module(states)
    assert found.dtype == dtype
    assert torch.equal(found, module(states.float()).to(dtype))


@every_method
def test_autocast_changes_nothing_inside_the_edit(method: str) -> None:
    edit = edit_of(method)
    module = EditModule(edit, random_tensors(edit, dtype=torch.float32), SIZE)
    states = states_of(dtype=torch.float32)
    expected = module(states)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(module(states), expected)


def test_a_model_under_autocast_runs_and_learns(tiny: Tiny) -> None:
    model, edit = tiny("gpt2"), edit_of()
    attachment = attach_interventions(model, [edit], tensors=[random_tensors(edit, 32)], trainable=True)
    labels = IDS.clone()
    labels[:, :5] = -100
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(input_ids=IDS, attention_mask=torch.ones_like(IDS), labels=labels).loss
    loss.backward()
    gradients = [parameter.grad for parameter in model.parameters() if parameter.requires_grad]
    assert len(gradients) == 3
    assert all(gradient is not None and bool(torch.isfinite(gradient).all()) for gradient in gradients)
    attachment.detach()


# Dropout


def test_dropout_falls_on_the_edit_and_not_on_the_state() -> None:
    edit = edit_of("lobireft")
    module = EditModule(edit, random_tensors(edit, dtype=torch.float32), SIZE).train()
    states = states_of(500, dtype=torch.float32)
    change = module(states) - states
    module.dropout = 0.25
    torch.manual_seed(0)
    found = module(states)
    dropped = found == states
    assert float(dropped.float().mean()) == pytest.approx(0.25, abs=0.02)
    torch.testing.assert_close((found - states)[~dropped], change[~dropped] / 0.75, atol=1e-5, rtol=1e-4)


def test_dropout_on_the_state_falls_on_the_sum_as_published() -> None:
    edit = edit_of("lobireft")
    module = EditModule(edit, random_tensors(edit, dtype=torch.float32), SIZE).train()
    states = states_of(500, dtype=torch.float32)
    whole = module(states)
    module.dropout, module.drops_state = 0.25, True
    torch.manual_seed(0)
    found = module(states)
    assert float((found == 0).float().mean()) == pytest.approx(0.25, abs=0.02)
    torch.testing.assert_close(found[found != 0], (whole / 0.75)[found != 0])


@pytest.mark.parametrize("drops_state", [False, True])
def test_dropout_is_off_outside_training(drops_state: bool) -> None:
    edit = edit_of()
    module = EditModule(edit, random_tensors(edit), SIZE).eval()
    expected = module(states_of())
    module.dropout, module.drops_state = 0.9, drops_state
    assert torch.equal(module(states_of()), expected)


# What a recipe keeps


@every_kind
@pytest.mark.parametrize("stream", Stream)
def test_a_recipe_read_back_computes_the_same(
    method: str, activation: str, stream: Stream, tiny: Tiny, tmp_path: Path
) -> None:
    model = tiny("llama")
    edit = edit_of(method, 6, activation=activation, subspaces=PARTS, site=StreamSite(1, stream))
    recipe = Recipe.of(model, [edit], tensors=[random_tensors(edit, 32, dtype=torch.float32)])

    def logits() -> Tensor:
        with torch.no_grad(), prompt_lengths([6]):
            return model(input_ids=IDS).logits

    plain = logits()
    with applied(model, recipe):
        expected = logits()
    assert not torch.allclose(expected, plain, atol=1e-3)
    recipe.save(tmp_path / "edit")
    read = Recipe.load(tmp_path / "edit")
    assert read == recipe
    with applied(model, read):
        assert torch.equal(logits(), expected)
    assert torch.equal(logits(), plain)


@every_method
def test_what_training_begins_with_computes_every_bit_the_same_from_a_file(
    method: str, tiny: Tiny, tmp_path: Path
) -> None:
    """A frame lies column by column in memory and a file's tensors row by row; sums must not be taken in another order."""
    model, edit = tiny("llama", hidden_size=576, num_attention_heads=9, num_key_value_heads=3), edit_of(method)
    recipe = Recipe.of(model, [edit], tensors=[edit.initial_tensors((576, 576), init="paper", generator=seeded())])
    recipe.save(tmp_path / "edit")
    states = states_of(size=576, dtype=torch.float32)
    one, other = (EditModule(edit, r.tensors[0], 576) for r in (recipe, Recipe.load(tmp_path / "edit")))
    assert torch.equal(one(states), other(states))
    assert torch.equal(one.basis_rows(), other.basis_rows())


def test_methods_and_activations_all_compute_something_else() -> None:
    """So that a method read back as another would be noticed."""
    outputs = []
    for method, activation in KINDS:
        edit = intervention_from_json(json.loads(json.dumps(edit_of(method, activation=activation).to_json((SIZE, 9)))))
        assert isinstance(edit, LowRankEdit)
        tensors = {name: own for name, own in random_tensors(edit_of("loreft")).items() if name in edit.learned_tensors}
        outputs.append(EditModule(edit, tensors, SIZE)(states_of()))
    for index, one in enumerate(outputs):
        assert not any(torch.allclose(one, other, atol=1e-3) for other in outputs[:index]), KINDS[index]


@every_kind
def test_an_edit_is_read_back_from_its_json(method: str, activation: str) -> None:
    edits = [
        edit_of(method, 6, activation=activation, positions=Positions.parse(text), subspaces=PARTS)
        for text in ("f2+l2", "f3", "l1", "f2(+l3)", "(f2+)l3", "prompt", "all")
    ]
    for one in (*edits, dataclasses.replace(edits[0], subspaces=(), site=StreamSite(0, Stream.MLP))):
        written = json.loads(json.dumps(one.to_json((SIZE, 9))))
        assert written["parameters"] == one.parameter_count((SIZE, SIZE))
        assert intervention_from_json(written) == one


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"layer": "1"}, "whole numbers"),
        ({"rank": 2.0}, "whole numbers"),
        ({"rank": True}, "whole numbers"),
        ({"stream": "residual"}, "'residual' is not a stream"),
        ({"positions": "first"}, "'first' does not name positions"),
        ({"activation": "swish"}, "activation is one of"),
        ({"activation": ["relu"]}, "cannot be read"),
        ({"subspaces": ["a"]}, "its subspaces are not names with whole numbers"),
        ({"subspaces": {"a": 1.5}}, "its subspaces are not names with whole numbers"),
        ({"subspaces": {"a": 1}}, "do not add up"),
    ],
)
def test_an_entry_that_makes_no_edit_is_refused(change: dict[str, Any], complaint: str) -> None:
    entry = edit_of().to_json((SIZE, 9))
    with pytest.raises(RecipeError) as caught:
        intervention_from_json({**entry, **change})
    assert complaint in str(caught.value)


@pytest.mark.parametrize("missing", ["layer", "rank", "positions"])
def test_an_entry_that_lacks_a_field_is_refused_by_its_name(missing: str) -> None:
    entry = edit_of().to_json((SIZE, 9))
    del entry[missing]
    with pytest.raises(RecipeError, match=f"lacks '{missing}'"):
        intervention_from_json(entry)


def spoilt(tensors: Mapping[str, Tensor], name: str, how: str) -> dict[str, Tensor]:
    others = {key: tensor for key, tensor in tensors.items() if key != name}
    if how == "missing":
        return others
    made = {
        "longer": lambda tensor: torch.cat([tensor, tensor]),
        "narrow": lambda tensor: tensor[..., :-1],
        "a number": lambda tensor: tensor.sum(),
        "NaN": lambda tensor: tensor.index_fill(0, torch.tensor([0]), torch.nan),
        "infinite": lambda tensor: tensor.index_fill(0, torch.tensor([0]), torch.inf),
        "whole numbers": lambda tensor: tensor.long(),
    }[how]
    return {**others, name: made(tensors[name])}


@every_method
@pytest.mark.parametrize("how", ["missing", "longer", "narrow", "a number", "NaN", "infinite", "whole numbers"])
def test_tensors_that_do_not_fit_are_refused_in_a_sentence_and_nothing_stays(method: str, how: str, tiny: Tiny) -> None:
    model, edit = tiny("llama"), edit_of(method)
    tensors = random_tensors(edit, 32, dtype=torch.float32)
    for name in tensors:
        with pytest.raises(InterventionError, match=r"^layer 1 block: .*; train anew.*\.$") as caught:
            attach_interventions(model, [edit, edit], tensors=[tensors, spoilt(tensors, name, how)])
        assert name in str(caught.value)
        assert "\n" not in str(caught.value)
        assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
        assert "generate" not in model.__dict__


def test_no_tensors_at_all_are_refused(tiny: Tiny) -> None:
    with pytest.raises(InterventionError, match=r"needs a tensor basis of shape \(4, 32\) .* is missing"):
        attach_interventions(tiny("llama"), [edit_of()])
