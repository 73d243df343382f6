"""LoRA as an intervention: the formula, the gradients of the dense matrix, and the numbers PEFT computes."""

import math
from collections.abc import Callable
from typing import Any

import peft
import pytest
import torch
from tests.fixtures.every_method import IDS, factors, logits
from torch import Tensor

from strop.anatomy import Anatomy, MatrixType, WeightSite
from strop.errors import InterventionError, UsageError
from strop.interventions import (
    FactoredChange,
    LowRankUpdate,
    RankReduction,
    applied_interventions,
    attach_interventions,
    brief,
    intervention_from_json,
    summarize,
)
from strop.linalg import decompose

T = MatrixType
SITE = WeightSite(1, T.QUERY)
UPDATE = LowRankUpdate(SITE, rank=3, alpha=12)


def test_it_adds_alpha_over_r_times_b_a() -> None:
    matrix = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    own = factors(UPDATE, (6, 4))
    UPDATE.check(own, (6, 4))
    expected = matrix + torch.stack([4 * sum(own["B"][row, k] * own["A"][k] for k in range(3)) for row in range(6)])  # type: ignore[misc]
    edited = UPDATE.edit(matrix, decompose=decompose, tensors=own)
    torch.testing.assert_close(edited, expected)
    inputs = torch.randn(2, 5, 4)
    torch.testing.assert_close(UPDATE.output_change(inputs, own), inputs @ (expected - matrix).T)
    change = UPDATE.factored_change(matrix, decompose=decompose, tensors=own)
    assert change is not None
    torch.testing.assert_close(change.product, expected - matrix)
    assert UPDATE.parameter_count((6, 4)) == 30


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_it_adds_in_float32_or_better_and_keeps_the_matrixs_dtype(dtype: torch.dtype) -> None:
    matrix = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)).to(dtype)
    own = factors(UPDATE, (6, 4))
    edited = UPDATE.edit(matrix, decompose=decompose, tensors=own)
    wide = {name: tensor.double() for name, tensor in own.items()}
    torch.testing.assert_close(edited, (matrix.double() + 4 * wide["B"] @ wide["A"]).to(dtype))
    nothing = {"A": own["A"], "B": torch.zeros(6, 3)}
    assert torch.equal(UPDATE.edit(matrix, decompose=decompose, tensors=nothing), matrix)


def test_it_begins_as_peft_and_linear_layers_begin() -> None:
    drawn = UPDATE.initial_tensors((6, 50), generator=torch.Generator().manual_seed(5))
    with torch.random.fork_rng():
        torch.manual_seed(5)
        linear = torch.nn.Linear(50, 3, bias=False)
    assert torch.equal(drawn["A"], linear.weight)
    assert float(drawn["A"].abs().max()) <= 1 / math.sqrt(50)
    assert not drawn["B"].any()
    assert drawn["B"].shape == (6, 3)


def dense(model: Any, family: str, change: Tensor, site: WeightSite) -> tuple[str, Tensor]:
    """The name of a raw parameter, and what it becomes where a change is added to the matrix of a site."""
    query = site.matrix_type is T.QUERY
    if family == "llama":
        name = f"model.layers.{site.layer}.self_attn.{'q' if query else 'v'}_proj.weight"
        return name, model.get_parameter(name) + change
    if family == "gpt2":
        name, first = f"transformer.h.{site.layer}.attn.c_attn.weight", 0 if query else 64
        return name, model.get_parameter(name) + torch.nn.functional.pad(change.T, (first, 64 - first))
    name = f"gpt_neox.layers.{site.layer}.attention.query_key_value.weight"
    whole = torch.zeros(4, 3, 8, 32)
    whole[:, 0 if query else 2] = 1
    placed = torch.zeros(96, 32).masked_scatter(whole.view(96, 32) > 0, change)
    return name, model.get_parameter(name) + placed


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox"])
@pytest.mark.parametrize("matrix_type", [T.QUERY, T.VALUE])
def test_its_gradients_are_those_of_the_dense_matrix(
    tiny: Callable[..., Any], family: str, matrix_type: MatrixType
) -> None:
    model, site = tiny(family), WeightSite(1, matrix_type)
    outputs, inputs = Anatomy.of(model).read_weight(model, site).shape
    update = LowRankUpdate(site, rank=3, alpha=12)
    own = factors(update, (outputs, inputs))
    attachment = attach_interventions(model, [update], tensors=[own], trainable=True)
    model(input_ids=IDS, labels=IDS).loss.backward()
    (module,) = attachment.modules
    assert module is not None
    found = {name: parameter.grad for name, parameter in module.learned.named_parameters()}  # type: ignore[union-attr]
    attachment.detach()
    leaves = {name: tensor.clone().requires_grad_() for name, tensor in own.items()}
    name, weight = dense(model, family, 4 * leaves["B"] @ leaves["A"], site)
    loss = torch.func.functional_call(model, {name: weight}, kwargs={"input_ids": IDS, "labels": IDS}).loss
    expected = torch.autograd.grad(loss, [leaves["A"], leaves["B"]])
    for name, gradient in zip("AB", expected, strict=True):
        assert gradient.any()
        torch.testing.assert_close(found[name], gradient, atol=1e-6, rtol=1e-4)


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")  # of PEFT
@pytest.mark.parametrize(
    ("family", "target", "matrix_type"),
    [("llama", "v_proj", T.VALUE), ("gpt2", "c_fc", T.UP), ("gpt_neox", "attention.dense", T.OUTPUT)],
)
def test_with_the_numbers_of_a_lora_of_pefts_it_says_what_that_says(
    tiny: Callable[..., Any], family: str, target: str, matrix_type: MatrixType
) -> None:
    settings = peft.LoraConfig(
        r=4, lora_alpha=6, target_modules=[target], fan_in_fan_out=family == "gpt2", init_lora_weights=False
    )
    adapted = peft.get_peft_model(tiny(family), settings).eval()
    model = tiny(family)
    anatomy = Anatomy.of(model)
    sites = anatomy.sites(matrix_types=[matrix_type])
    theirs = [adapted.base_model.model.get_submodule(anatomy.module_path(site)) for site in sites]
    tensors = [{"A": own.lora_A["default"].weight, "B": own.lora_B["default"].weight} for own in theirs]
    plain = logits(model)
    updates = [LowRankUpdate(site, rank=4, alpha=6) for site in sites]
    with applied_interventions(model, updates, tensors=tensors):
        found = logits(model)
    assert not torch.allclose(found, plain, atol=1e-2)
    torch.testing.assert_close(found, logits(adapted), atol=1e-5, rtol=1e-4)
    attachment = attach_interventions(model, updates, tensors=tensors, trainable=True)
    torch.testing.assert_close(logits(model), found, atol=1e-5, rtol=1e-4)
    attachment.detach()


def test_two_of_one_matrix_are_one_of_both_ranks() -> None:
    other = LowRankUpdate(SITE, rank=2, alpha=1)
    mine, theirs = factors(UPDATE, (6, 4)), factors(other, (6, 4), torch.Generator().manual_seed(1))
    found = UPDATE.plus(other, mine, theirs)
    assert found is not None
    both, tensors = found
    assert (both.rank, both.alpha) == (5, 20.0)
    both.check(tensors, (6, 4))
    zero = torch.zeros(6, 4)
    expected = 4 * mine["B"] @ mine["A"] + 0.5 * theirs["B"] @ theirs["A"]
    torch.testing.assert_close(both.edit(zero, decompose=decompose, tensors=tensors), expected)
    head = LowRankUpdate(WeightSite(1, T.QUERY, head=0), 2, 1)
    assert UPDATE.plus(head, mine, theirs) is None


def test_factors_are_small_where_they_are_fewer_numbers_than_the_matrix() -> None:
    assert FactoredChange(torch.zeros(6, 2), torch.zeros(2, 4)).is_small
    assert not FactoredChange(torch.zeros(6, 3), torch.zeros(3, 4)).is_small


@pytest.mark.parametrize(
    ("rank", "alpha", "said"),
    [
        (0, 1, "layer 1 query: a LoRA's rank is 1 or more, not 0."),
        (2.0, 1, "layer 1 query: a LoRA's rank is 1 or more, not 2.0."),
        (True, 1, "layer 1 query: a LoRA's rank is 1 or more, not True."),
        (2, 0, "layer 1 query: a LoRA's alpha is a number above 0, not 0."),
        (2, math.nan, "layer 1 query: a LoRA's alpha is a number above 0, not nan."),
        (2, "16", "layer 1 query: a LoRA's alpha is a number above 0, not 16."),
    ],
)
def test_what_is_no_lora_is_refused_at_once(rank: Any, alpha: Any, said: str) -> None:
    with pytest.raises(UsageError) as raised:
        LowRankUpdate(SITE, rank, alpha)
    assert str(raised.value) == said


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"A": None}, "layer 1 query: the recipe's A is missing; copy the whole folder, or train anew."),
        ({"B": None}, "layer 1 query: the recipe's B is missing; copy the whole folder, or train anew."),
        ({"A": torch.zeros(3, 5)}, r"its A is to be \(3, 4\) finite numbers, not a tensor of shape \(3, 5\)"),
        ({"B": torch.full((6, 3), torch.nan)}, r"its B is to be \(6, 3\) finite numbers"),
        ({"C": torch.zeros(1)}, "lora knows no tensor 'C', and the recipe has one; it knows A, B"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(changes: dict[str, Tensor | None], said: str) -> None:
    given = {name: own for name, own in {**factors(UPDATE, (6, 4)), **changes}.items() if own is not None}
    with pytest.raises(InterventionError, match=said):
        UPDATE.check(given, (6, 4))


def test_it_is_written_read_and_put_into_words() -> None:
    entry = UPDATE.to_json((6, 4))
    assert entry == {
        "method": "lora", "layer": 1, "matrix_type": "query", "rank": 3, "alpha": 12, "parameters": 30,
    }  # fmt: skip
    assert intervention_from_json(entry) == UPDATE
    others = [LowRankUpdate(WeightSite(layer, T.VALUE), 3, 12).to_json((6, 4)) for layer in (1, 2)]
    wider = LowRankUpdate(SITE, 4, 8).to_json((6, 4))
    assert summarize([entry, *others, wider, RankReduction(SITE, 0.5).to_json((6, 4))])[:2] == [
        "LoRA of rank 3 (α 12) on query, value in 2 layers (90 learned parameters)",
        "LoRA of rank 4 (α 8) on query in layer 1 (40 learned parameters)",
    ]
    assert brief([entry]) == "LoRA of rank 3"
    assert brief([entry, wider]) == "LoRA of rank 3, 4"
    assert str(UPDATE) == "layer 1 query, LoRA of rank 3"
