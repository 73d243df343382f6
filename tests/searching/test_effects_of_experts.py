"""Effects where no module shows a matrix's inputs: autograd's of the same loss, expert by expert, example by example."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from tests.fixtures.mixtures import FAMILIES, MIXTURES, STATE_SPACE, make_described
from torch import Tensor, nn

from strop.anatomy import Anatomy, Family, MatrixType, Spelling, WeightSite
from strop.errors import UsageError
from strop.linalg import decompose
from strop.scoring import Resources, Scorer
from strop.scoring.resources import using
from strop.searching import EffectPlan, Effects, measure_effects
from strop.searching.laser.candidates import predicted_candidates
from strop.tasks import Example, Task

T = MatrixType
MLP = (T.GATE, T.UP, T.DOWN)


def loss_of(model: Any, tokenizer: Any, example: Example) -> Tensor:
    prompt, answer = tokenizer(example.prompt)["input_ids"], tokenizer(example.answer)["input_ids"]
    logits = model(torch.tensor([prompt + answer]), use_cache=False).logits[0].log_softmax(-1)
    terms = [logits[len(prompt) - 1 + index, token] for index, token in enumerate(answer)]
    return -sum(terms) / len(terms)


def projected(matrix: Tensor, gradient: Tensor) -> np.ndarray:
    """−σ_i u_iᵀ G v_i, (rank,)."""
    u, s, vh = np.linalg.svd(matrix.detach().double().numpy(), full_matrices=False)
    found: np.ndarray = -s * np.einsum("or,oi,ri->r", u, gradient.double().numpy(), vh)
    return found


def by_example(
    model: Any, anatomy: Anatomy, tokenizer: Any, examples: Sequence[Example], sites: Sequence[WeightSite]
) -> dict[WeightSite, np.ndarray]:
    """Each example's effects, (examples, rank): from autograd's gradients of whole parameters."""
    rows: dict[WeightSite, list[np.ndarray]] = {site: [] for site in sites}
    for example in examples:
        model.zero_grad()
        loss_of(model, tokenizer, example).backward()
        for site in sites:
            parameter = anatomy.parameter(model, site)
            rows[site].append(projected(anatomy.read_weight(model, site), anatomy.matrix_in(parameter.grad, site)))
    return {site: np.stack(found) for site, found in rows.items()}


def assert_close(found: Tensor, expected: np.ndarray, site: WeightSite) -> None:
    np.testing.assert_allclose(found.numpy(), expected, atol=2e-3 * np.abs(expected).max(), err_msg=str(site))


def measured(
    model: Any, anatomy: Anatomy, tokenizer: Any, examples: Sequence[Example], sites: Sequence[WeightSite], **plan: Any
) -> dict[WeightSite, Effects]:
    scorer = Scorer(model, tokenizer, examples, "exact", anatomy=anatomy)
    return measure_effects(scorer, sites, decompose=decompose, plan=EffectPlan(**plan))


@pytest.mark.parametrize("name", [*MIXTURES, *STATE_SPACE])
def test_effects_are_the_weight_gradients_on_the_singular_vectors(small_tokenizer: Any, task: Task, name: str) -> None:
    model = make_described(name)
    anatomy, examples = Anatomy.of(model, family=FAMILIES[name]), task.examples("select", limit=4)
    sites = anatomy.sites()
    found = measured(model, anatomy, small_tokenizer, examples, sites)
    assert list(found) == list(sites)
    assert sum(bool(effects.loss_change.any()) for effects in found.values()) > 0.8 * len(sites)
    for site, expected in by_example(model, anatomy, small_tokenizer, examples, sites).items():
        assert_close(found[site].loss_change, expected.mean(0), site)


@pytest.mark.parametrize("implementation", ["eager", "batched_mm", "grouped_mm"])
def test_it_does_not_matter_how_experts_are_computed(small_tokenizer: Any, task: Task, implementation: str) -> None:
    model = make_described("mixtral")
    anatomy, examples = Anatomy.of(model, family=FAMILIES["mixtral"]), task.examples("select", limit=4)
    sites = anatomy.sites(layers=[0])
    model.config._experts_implementation = "eager"
    expected = by_example(model, anatomy, small_tokenizer, examples, sites)
    model.config._experts_implementation = implementation
    for site, found in measured(model, anatomy, small_tokenizer, examples, sites).items():
        assert_close(found.loss_change, expected[site].mean(0), site)


@pytest.mark.parametrize("name", ["mixtral", "gpt_oss", "mamba"])
def test_reductions_by_example_are_those_of_each_examples_own_gradient(
    small_tokenizer: Any, task: Task, name: str
) -> None:
    model = make_described(name)
    anatomy, examples = Anatomy.of(model, family=FAMILIES[name]), task.examples("select", limit=5)
    sites = [site for site in anatomy.sites(layers=[1]) if site.expert in (None, 1)]
    expected = by_example(model, anatomy, small_tokenizer, examples, sites)
    for reduction in ("consistency", "squares"):
        found = measured(model, anatomy, small_tokenizer, examples, sites, reduction=reduction)
        for site, own in expected.items():
            score = own.mean(0) / own.std(0) if reduction == "consistency" else (own**2).mean(0)
            np.testing.assert_allclose(found[site].score.numpy(), score, rtol=0.05, atol=1e-2 * np.abs(score).max())
            assert_close(found[site].loss_change, own.mean(0), site)


class DenseExperts(nn.Module):
    """Mixtral's experts with a matrix of its own for each, all of which see every token and are weighted by the router."""

    def __init__(self, experts: Any) -> None:
        super().__init__()
        gates, ups = experts.gate_up_proj.detach().chunk(2, dim=1)
        self.matrices = {
            (kind, expert): stored[expert].clone().requires_grad_()
            for kind, stored in ((T.GATE, gates), (T.UP, ups), (T.DOWN, experts.down_proj.detach()))
            for expert in range(stored.shape[0])
        }

    def forward(self, states: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
        total = torch.zeros_like(states)
        for expert in range(3):
            gate, up, down = (self.matrices[kind, expert] for kind in MLP)
            made = (nn.functional.silu(states @ gate.T) * (states @ up.T)) @ down.T
            total = total + made * (weights * (chosen == expert)).sum(-1, keepdim=True)
        return total


def test_a_token_counts_only_at_the_experts_it_is_routed_to(small_tokenizer: Any, task: Task) -> None:
    model = make_described("mixtral")
    anatomy, examples = Anatomy.of(model, family=FAMILIES["mixtral"]), task.examples("select", limit=4)
    sites = anatomy.sites(layers=[1], matrix_types=MLP)
    found = measured(model, anatomy, small_tokenizer, examples, sites)
    weights = {site: anatomy.read_weight(model, site).clone() for site in sites}
    mlp = model.model.layers[1].mlp
    mlp.experts = experts = DenseExperts(mlp.experts)
    sum(loss_of(model, small_tokenizer, example) for example in examples).backward()
    for site in sites:
        assert site.expert is not None
        gradient = experts.matrices[site.matrix_type, site.expert].grad
        assert gradient is not None
        assert_close(found[site].loss_change, projected(weights[site], gradient) / len(examples), site)


def test_an_expert_that_no_token_reaches_has_effects_of_zero_and_is_proposed_last(
    small_tokenizer: Any, task: Task
) -> None:
    model = make_described("gpt_oss")
    with torch.no_grad():
        model.model.layers[1].mlp.router.bias[2] = -1e4
    anatomy, examples = Anatomy.of(model, family=FAMILIES["gpt_oss"]), task.examples("select", limit=4)
    sites = anatomy.sites(layers=[1], matrix_types=MLP)
    for reduction in ("sum", "consistency"):
        found = measured(model, anatomy, small_tokenizer, examples, sites, reduction=reduction)
        for site, effects in found.items():
            assert bool(effects.loss_change.any()) == bool(effects.score.any()) == (site.expert != 2), site
    shapes = {site: tuple(anatomy.read_weight(model, site).shape) for site in sites}
    order = list(
        dict.fromkeys(
            edit.site for edit in predicted_candidates(found, shapes, top_matrices=len(sites), rank_fractions=None)
        )
    )
    assert {site.expert for site in order[-3:]} == {2}


class ListedExperts(nn.ModuleList):
    """Mixtral's experts as modules that see the tokens routed to them, as they were before transformers stacked them."""

    def forward(self, states: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
        total = torch.zeros_like(states)
        for number, expert in enumerate(self):
            tokens, place = (chosen == number).nonzero(as_tuple=True)
            if len(tokens):
                made = expert.w2(nn.functional.silu(expert.w1(states[tokens])) * expert.w3(states[tokens]))
                total = total.index_add(0, tokens, made * weights[tokens, place, None])
        return total


def test_experts_that_are_modules_have_the_effects_of_stacked_ones(small_tokenizer: Any, task: Task) -> None:
    model = make_described("mixtral")
    examples = task.examples("select", limit=4)
    stacked, plan = Anatomy.of(model, family=FAMILIES["mixtral"]), {"reduction": "consistency"}
    expected = measured(model, stacked, small_tokenizer, examples, stacked.sites(matrix_types=MLP), **plan)
    weights = {site: stacked.read_weight(model, site).clone() for site in expected}
    names = {T.GATE: "w1", T.UP: "w3", T.DOWN: "w2"}
    for layer, block in enumerate(model.model.layers):
        experts = [nn.Module() for _ in range(3)]
        for site, weight in weights.items():
            if site.layer == layer:
                assert site.expert is not None
                linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
                linear.weight.data = weight
                setattr(experts[site.expert], names[site.matrix_type], linear)
        block.mlp.experts = ListedExperts(experts)
    family = Family(
        "listed", (), "model.layers", {t: Spelling(f"mlp.experts.{{expert}}.{name}") for t, name in names.items()}
    )
    anatomy = Anatomy.of(model, family=family)
    found = measured(model, anatomy, small_tokenizer, examples, anatomy.sites(), **plan)
    assert set(found) == set(expected)
    for site, effects in found.items():
        scale = float(expected[site].loss_change.abs().max())
        torch.testing.assert_close(effects.loss_change, expected[site].loss_change, atol=1e-3 * scale, rtol=0)


def test_batches_of_several_and_waiting_on_disk_change_nothing(small_tokenizer: Any, task: Task) -> None:
    model = make_described("mixtral")
    anatomy, examples = Anatomy.of(model, family=FAMILIES["mixtral"]), task.examples("select", limit=6)
    sites = anatomy.sites(layers=[0], matrix_types=MLP)
    expected = measured(model, anatomy, small_tokenizer, examples, sites)
    with using(Resources(batch_tokens=40, effect_bytes=1)):
        found = measured(model, anatomy, small_tokenizer, examples, sites)
    for site, effects in found.items():
        torch.testing.assert_close(effects.loss_change, expected[site].loss_change, atol=1e-5, rtol=1e-3)


def test_asking_leaves_the_parameters_as_they_were(small_tokenizer: Any, task: Task) -> None:
    model = make_described("mixtral")
    experts = model.model.layers[0].mlp.experts
    experts.down_proj.requires_grad_(False)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    anatomy = Anatomy.of(model, family=FAMILIES["mixtral"])
    measured(model, anatomy, small_tokenizer, task.examples("select", limit=2), anatomy.sites())
    assert not experts.down_proj.requires_grad
    assert experts.gate_up_proj.requires_grad
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(parameter, before[name]) for name, parameter in model.named_parameters())


@pytest.mark.parametrize(
    ("plan", "complaint"),
    [
        (
            {"counterfactual": "mean"},
            r"layer 0 down expert 0: which tokens reach it cannot be seen, and counterfactual 'mean' needs that; take "
            r"counterfactual 'zero' \(--counterfactual zero\)",
        ),
        ({"reduction": "max"}, r"reduction 'max' needs that; take reduction 'consistency'"),
        ({"steps": 4}, r"steps '4' needs that; take steps '1' \(--steps 1\), or other matrices \(--matrix-types\)"),
    ],
)
def test_what_needs_the_inputs_of_one_expert_is_refused(
    small_tokenizer: Any, task: Task, plan: dict[str, Any], complaint: str
) -> None:
    model = make_described("mixtral")
    anatomy = Anatomy.of(model, family=FAMILIES["mixtral"])
    sites = [WeightSite(0, T.KEY), WeightSite(0, T.DOWN, expert=0)]
    with pytest.raises(UsageError, match=complaint):
        measured(model, anatomy, small_tokenizer, task.examples("select", limit=4), sites, **plan)
    measured(model, anatomy, small_tokenizer, task.examples("select", limit=4), sites[:1], **plan)
