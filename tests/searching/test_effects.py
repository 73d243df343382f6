"""Asking the gradient: the effects are those of autograd's weight gradients and of singular values turned down."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.fixtures.opt import OPT, make_tiny_opt

from strop.anatomy import Anatomy, MatrixType, WeightSite
from strop.linalg import DecompositionCache, decompose, singular_value_effects_from_gradient
from strop.scoring import Resources, Scorer
from strop.searching import EffectPlan, measure_effects
from strop.tasks import Task

THREE_FAMILIES = ["llama", "gpt2", "gpt_neox"]


def loss_by_hand(model: Any, tokenizer: Any, examples: Any, score: str) -> torch.Tensor:
    total = torch.zeros(())
    for example in examples:
        prompt, answer = tokenizer(example.prompt)["input_ids"], tokenizer(example.answer)["input_ids"]
        logits = model(torch.tensor([prompt + answer])).logits[0]
        log_p = logits.log_softmax(-1)
        wanted = answer[:1] if score == "first_token" else answer
        terms = [log_p[len(prompt) - 1 + index, token] for index, token in enumerate(wanted)]
        total = total - sum(terms) / len(terms)
    return total / len(examples)


@pytest.mark.parametrize("family", THREE_FAMILIES)
@pytest.mark.parametrize("score", ["exact", "first_token", "perplexity"])
def test_effects_are_the_weight_gradients_on_the_singular_vectors(
    answering: Callable[..., Any], small_tokenizer: Any, task: Any, family: str, score: Any
) -> None:
    model = answering(family)
    examples = task.examples("select", limit=8)
    anatomy = Anatomy.of(model)
    sites = anatomy.sites()
    found = measure_effects(
        Scorer(model, small_tokenizer, examples, score), sites, decompose=DecompositionCache().decompose
    )
    assert list(found) == list(sites)
    loss_by_hand(model, small_tokenizer, examples, score).backward()
    for site in sites:
        parameter = anatomy.parameter(model, site)
        assert parameter.grad is not None
        weight = anatomy.matrix_in(parameter.detach(), site).double().numpy()
        gradient = anatomy.matrix_in(parameter.grad, site).double().numpy()
        u, s, vh = np.linalg.svd(weight, full_matrices=False)
        expected = -s * np.einsum("or,oi,ri->r", u, gradient, vh)
        scale = np.abs(expected).max()
        assert scale > 0
        np.testing.assert_allclose(found[site].loss_change.numpy(), expected, atol=2e-3 * scale, err_msg=str(site))


@pytest.mark.parametrize("counterfactual", ["zero", "mean", "roll"])
def test_effects_are_found_where_a_module_is_given_all_tokens_one_after_another(
    small_tokenizer: Any, task: Any, counterfactual: Any, tmp_path: Path
) -> None:
    model = make_tiny_opt()
    anatomy, examples = Anatomy.of(model, family=OPT), task.examples("select", limit=6)
    sites = [WeightSite(1, MatrixType.UP), WeightSite(1, MatrixType.DOWN), WeightSite(0, MatrixType.KEY)]
    scorer = Scorer(model, small_tokenizer, examples, "exact", anatomy=anatomy)
    plan = EffectPlan(counterfactual=counterfactual, reduction="sum")
    found = measure_effects(scorer, sites, plan=plan, decompose=DecompositionCache(tmp_path).decompose)
    if counterfactual != "zero":
        assert all(bool(found[site].loss_change.any()) for site in sites)
        return
    loss_by_hand(model, small_tokenizer, examples, "exact").backward()
    for site in sites:
        parameter = anatomy.parameter(model, site)
        assert parameter.grad is not None
        expected = singular_value_effects_from_gradient(decompose(parameter.detach()), parameter.grad)
        scale = float(expected.abs().max())
        torch.testing.assert_close(found[site].loss_change, expected, atol=2e-3 * scale, rtol=0)


@pytest.mark.parametrize("family", THREE_FAMILIES)
def test_an_effect_is_how_the_loss_answers_as_one_singular_value_is_turned_down(
    answering: Callable[..., Any], small_tokenizer: Any, task: Any, family: str
) -> None:
    model = answering(family).double()
    anatomy, examples = Anatomy.of(model), task.examples("select", limit=4)
    sites = anatomy.sites(layers=[1])
    scorer = Scorer(model, small_tokenizer, examples, "exact")
    found = measure_effects(scorer, sites, decompose=DecompositionCache().decompose)
    for site in sites[::2]:
        parameter = anatomy.parameter(model, site)
        original = parameter.detach().clone()
        u, s, vh = torch.linalg.svd(anatomy.matrix_in(original, site), full_matrices=False)
        losses = []
        for nudge in (1e-4, -1e-4):
            with torch.no_grad():
                component = -nudge * s[0] * torch.outer(u[:, 0], vh[0])
                anatomy.write_matrix(parameter.data, site, anatomy.matrix_in(original, site) + component)
                losses.append(float(loss_by_hand(model, small_tokenizer, examples, "exact")))
                parameter.data.copy_(original)
        scale = float(found[site].loss_change.abs().max())
        assert float(found[site].loss_change[0]) == pytest.approx((losses[0] - losses[1]) / 2e-4, abs=0.02 * scale)


def test_asking_for_a_few_matrices_gives_what_asking_for_all_gives(
    answering: Callable[..., Any], small_tokenizer: Any, task: Any
) -> None:
    model = answering("gpt_neox")
    scorer = Scorer(model, small_tokenizer, task.examples("select", limit=8), "exact")
    sites = scorer.anatomy.sites()
    everything = measure_effects(scorer, sites, decompose=decompose)
    few = [site for site in sites if site.layer == 2 and site.matrix_type in ("key", "down")]
    for site, effects in measure_effects(scorer, few, decompose=decompose).items():
        torch.testing.assert_close(effects.loss_change, everything[site].loss_change, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("family", THREE_FAMILIES)
def test_asking_leaves_the_model_as_it_was(
    answering: Callable[..., Any], small_tokenizer: Any, task: Any, bits: Any, family: str
) -> None:
    model = answering(family).train()
    model.get_input_embeddings().weight.requires_grad_(False)
    asking = [parameter.requires_grad for parameter in model.parameters()]
    before = bits(model)
    scorer = Scorer(model, small_tokenizer, task.examples("select", limit=4), "exact")
    measure_effects(scorer, scorer.anatomy.sites(), decompose=DecompositionCache().decompose)
    assert bits(model) == before
    assert [parameter.requires_grad for parameter in model.parameters()] == asking
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(module.training for module in model.modules())
    assert all(not module._forward_hooks and not module._forward_pre_hooks for module in model.modules())


def effects_of(scorer: Scorer) -> dict[WeightSite, torch.Tensor]:
    found = measure_effects(scorer, scorer.anatomy.sites(), decompose=decompose)
    return {site: effects.loss_change for site, effects in found.items()}


def test_effects_in_float16_do_not_vanish_with_the_number_of_examples(
    answering: Callable[..., Any], small_tokenizer: Any, task: Task
) -> None:
    examples = task.examples("select", limit=6)
    exact = effects_of(Scorer(answering(), small_tokenizer, examples, "exact"))
    scorer = Scorer(answering().half(), small_tokenizer, examples, "exact")
    scorer.example_count = 6 * 100_000  # as if these six stood among many more
    for site, effects in effects_of(scorer).items():
        size = float(exact[site].abs().max())
        assert torch.allclose(effects * 100_000, exact[site], atol=0.05 * size), site


def test_a_sample_whose_states_wait_on_disk_has_the_same_effects(
    answering: Callable[..., Any], small_tokenizer: Any, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("strop.scoring.resources.CPU", Resources(batch_tokens=48))
    scorer = Scorer(answering(), small_tokenizer, task.examples("select"), "exact")
    assert len(scorer.batches) > 3
    whole = effects_of(scorer)
    monkeypatch.setattr("strop.scoring.resources.CPU", Resources(effect_bytes=1))
    for site, effects in effects_of(scorer).items():
        assert torch.equal(effects, whole[site]), site


def test_long_rows_scored_a_few_positions_at_a_time_score_the_same(
    answering: Callable[..., Any],
    small_tokenizer: Any,
    task_scored_by: Callable[[str], Task],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    examples = task_scored_by("perplexity").examples("select", limit=5)
    model = answering()

    def scored() -> tuple[Any, dict[WeightSite, torch.Tensor]]:
        scorer = Scorer(model, small_tokenizer, examples, "perplexity")
        states = scorer.states_entering(1)
        assert scorer.evaluate(start=1, states=states).loss == pytest.approx(scorer.evaluate().loss, rel=1e-5)
        return scorer.evaluate(), effects_of(scorer)

    whole, whole_effects = scored()
    monkeypatch.setattr("strop.scoring.resources.CPU", Resources(scored_positions=2))
    parts, part_effects = scored()
    assert parts.loss == pytest.approx(whole.loss, rel=1e-5)
    assert (parts.tokens == whole.tokens).all()
    for site, effects in part_effects.items():
        assert torch.allclose(effects, whole_effects[site], rtol=1e-4, atol=1e-7), site
