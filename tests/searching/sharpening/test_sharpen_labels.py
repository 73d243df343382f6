"""Sharpening of classifiers: gradient and Fisher information are the true ones, a step helps, and the recipe holds it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import strop
from strop.anatomy import Anatomy
from strop.errors import UsageError
from strop.interventions import SpectrumScaling, attach_interventions
from strop.linalg import decompose
from strop.proving import RunOptions
from strop.recipe import Recipe
from strop.scoring import ClassScorer
from strop.scoring.class_scorer import losses
from strop.searching import SharpenPlan, sharpen
from strop.searching.effect_plan import EffectPlan
from strop.searching.label_effects import measure_label_effects
from strop.tasks import Task, load_task

Classifier = Callable[..., Any]


@pytest.fixture
def task(cities: Callable[..., Path]) -> Task:
    return load_task(cities())


def asked(model: Any, tokenizer: Any, task: Task, **settings: Any) -> tuple[ClassScorer, list[Any], dict[Any, Any]]:
    """Return some texts, the sites, and what is measured of them."""
    assert task.labels is not None
    anatomy = Anatomy.of(model)
    scorer = ClassScorer(model, tokenizer, task.examples("train")[:6], task.labels, anatomy=anatomy)
    sites = list(anatomy.sites())
    held = {site: decompose(anatomy.read_weight(model, site).clone()) for site in sites}
    return scorer, sites, measure_label_effects(scorer, sites, decompositions=held.__getitem__, **settings)


def learning_changes(model: Any, sites: list[Any]) -> tuple[Any, list[torch.Tensor]]:
    anatomy = Anatomy.of(model)
    changes = [{"change": torch.zeros(min(anatomy.read_weight(model, site).shape))} for site in sites]
    edits = [SpectrumScaling(site) for site in sites]
    attachment = attach_interventions(model, edits, tensors=changes, anatomy=anatomy, trainable=True)
    return attachment, [module.learned["change"] for module in attachment.modules]


@pytest.mark.parametrize(("family", "numbers"), [("llama", False), ("bert", False), ("gpt2", True)])
def test_the_gradient_is_that_of_the_mean_loss(
    tiny_classifier: Classifier, small_tokenizer: Any, cities: Callable[..., Path], family: str, numbers: bool
) -> None:
    keys = {"answer": "{{ degree }}", "labels": "number"} if numbers else {}
    task = load_task(cities(**keys))
    model = tiny_classifier(family, 1 if numbers else 2)
    flags = [parameter.requires_grad for parameter in model.parameters()]
    scorer, sites, found = asked(model, small_tokenizer, task)
    assert [parameter.requires_grad for parameter in model.parameters()] == flags
    attachment, parameters = learning_changes(model, sites)
    loss = sum(losses(model(**batch.inputs).logits, batch.targets).sum() for batch in scorer.batches) / 6
    for site, expected in zip(sites, torch.autograd.grad(loss, parameters), strict=True):
        torch.testing.assert_close(-found[site].loss_change.float(), expected, atol=1e-5, rtol=2e-3)
    attachment.detach()


def test_the_fisher_information_is_that_of_labels_the_model_draws(
    tiny_classifier: Classifier, small_tokenizer: Any, task: Task
) -> None:
    model = tiny_classifier("bert")
    scorer, sites, found = asked(
        model,
        small_tokenizer,
        task,
        plan=EffectPlan(reduction="squares"),
        drawn_by=torch.Generator().manual_seed(3),
    )
    attachment, parameters = learning_changes(model, sites)
    generator, total, drawn = torch.Generator().manual_seed(3), [torch.zeros_like(own) for own in parameters], []
    for batch in scorer.batches:
        own = torch.multinomial(model(**batch.inputs).logits.softmax(-1), 1, generator=generator)[:, 0]
        drawn += (own == batch.targets).tolist()
        for row, label in enumerate(own):
            one = {name: tensor[row : row + 1] for name, tensor in batch.inputs.items()}
            gradients = torch.autograd.grad(losses(model(**one).logits, label[None]).sum(), parameters)
            for each, gradient in zip(total, gradients, strict=True):
                each += gradient**2 / 6
    assert not all(drawn)
    for site, expected in zip(sites, total, strict=True):
        torch.testing.assert_close(found[site].score.float(), expected, atol=1e-7, rtol=5e-3)
    attachment.detach()


@pytest.mark.parametrize("precondition", ["fisher-sign", "sign"])
def test_steps_help_a_classifier_and_its_recipe_holds_them(
    tiny_classifier: Classifier, small_tokenizer: Any, task: Task, tmp_path: Path, precondition: Any
) -> None:
    model = tiny_classifier("llama")
    before = {name: own.clone() for name, own in model.state_dict().items()}
    plan = SharpenPlan(precondition=precondition, step=0.1, steps=2, examples=16)
    found = sharpen(model, small_tokenizer, task, plan, RunOptions(out=tmp_path / "run", rivals=False))
    assert found.result.edited["select"].loss < found.result.base["select"].loss
    assert found.result.metric == "accuracy"
    assert not found.result.guards
    assert found.result.price is not None
    assert found.result.price.drift is None
    assert all(torch.equal(own, before[name]) for name, own in model.state_dict().items())
    recipe = Recipe.load(tmp_path / "run" / "recipe")
    assert recipe.interventions
    assert {type(edit) for edit in recipe.interventions} == {SpectrumScaling}
    with strop.applied(model, recipe):
        again = strop.evaluate(model, small_tokenizer, task, split="test")
    assert again.figures.loss == pytest.approx(found.result.edited["test"].loss, rel=1e-5)
    plan_kept = sharpen(model, small_tokenizer, task, plan, RunOptions(out=tmp_path / "run", resume=True, rivals=False))
    assert plan_kept.result == found.result


@pytest.mark.parametrize("settings", [{"drift": 0.01}, {"fisher_texts": 4}])
def test_what_is_about_text_is_refused_of_a_classifier(
    tiny_classifier: Classifier, small_tokenizer: Any, task: Task, settings: dict[str, Any]
) -> None:
    with pytest.raises(UsageError, match="Task cities has labels, and a classifier writes no text that drift"):
        sharpen(tiny_classifier("llama"), small_tokenizer, task, SharpenPlan(**settings))


def test_a_task_with_labels_needs_a_classifier(tiny: Callable[..., Any], small_tokenizer: Any, task: Task) -> None:
    with pytest.raises(UsageError, match="score: label needs a classifier"):
        sharpen(tiny("llama"), small_tokenizer, task)
