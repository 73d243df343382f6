"""Search, pruning and sharpening of classifiers, of images and of texts: effects are autograd's, and recipes bake."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.fixtures.images import image_keys, image_rows, make_processor, make_vit, save_vit
from torch.nn.functional import cross_entropy
from transformers import ViTForImageClassification

import strop
from strop import SingularValuePruning
from strop.anatomy import Anatomy, MatrixType, WeightSite
from strop.errors import InterventionError, RunError, UsageError
from strop.linalg import decompose
from strop.scoring import ClassScorer
from strop.searching.averages import mean_inputs
from strop.searching.effect_plan import EffectPlan
from strop.searching.label_effects import measure_label_effects
from strop.tasks import Task, load_task

UP = WeightSite(1, MatrixType.UP)


@pytest.fixture
def task() -> Task:
    return load_task(image_keys(data=image_rows(40)))


def asked(model: Any, reader: Any, task: Task, **plan: Any) -> tuple[ClassScorer, dict[Any, Any], Any]:
    """Return some examples, the effects that are measured on them, and the decompositions they are projected on."""
    assert task.labels is not None
    anatomy = Anatomy.of(model)
    scorer = ClassScorer(model, reader, task.examples("train")[:8], task.labels, anatomy=anatomy)
    held = {site: decompose(anatomy.read_weight(model, site).clone()) for site in anatomy.sites()}
    found = measure_label_effects(scorer, list(held), decompositions=held.__getitem__, plan=EffectPlan(**plan))
    return scorer, found, held


def test_effects_are_those_of_the_weights_own_gradients(task: Task) -> None:
    model = make_vit()
    scorer, found, held = asked(model, make_processor(), task)
    assert len(found) == 12
    loss = sum(cross_entropy(model(**batch.inputs).logits, batch.targets, reduction="sum") for batch in scorer.batches)
    anatomy = Anatomy.of(model)
    weights = [anatomy.parameter(model, site) for site in found]
    for site, gradient in zip(found, torch.autograd.grad(loss / 8, weights), strict=True):
        u, s, vh = held[site].u, held[site].singular_values, held[site].vh
        expected = -s * torch.einsum("oi,oj,ij->i", u, gradient, vh)
        torch.testing.assert_close(found[site].loss_change.float(), expected, atol=1e-5, rtol=1e-3)


def changes_by_hand(model: Any, scorer: ClassScorer, how: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return Δx of layer 1's up matrix and ∇y of the mean loss, (images, patches, size), both."""
    (batch,) = scorer.batches
    seen: list[torch.Tensor] = []

    def keep(_: Any, arguments: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        seen.extend((arguments[0], output))

    handle = model.vit.layers[1].mlp.fc1.register_forward_hook(keep)
    loss = cross_entropy(model(**batch.inputs).logits, batch.targets)
    handle.remove()
    inputs, output = seen
    other = inputs.roll(1, 0) if how == "roll" else inputs.mean((0, 1))
    return (other - inputs).detach(), torch.autograd.grad(loss, output)[0]


@pytest.mark.parametrize("how", ["mean", "roll"])
def test_other_counterfactuals_are_those_computed_by_hand(task: Task, how: str) -> None:
    model = make_vit()
    scorer, found, held = asked(model, make_processor(), task, counterfactual=how, reduction="sum")
    changes, gradients = changes_by_hand(model, scorer, how)
    own = held[UP]
    expected = ((changes @ own.vh.T) * (gradients @ own.u) * own.singular_values).sum((0, 1))
    torch.testing.assert_close(found[UP].loss_change.float(), expected, atol=1e-5, rtol=1e-3)


def test_the_mean_input_is_that_of_all_patches(task: Task) -> None:
    model = make_vit()
    assert task.labels is not None
    scorer = ClassScorer(model, make_processor(), task.examples("train")[:8], task.labels)
    changes, _ = changes_by_hand(model, scorer, "mean")
    (batch,) = scorer.batches
    seen: list[torch.Tensor] = []
    handle = model.vit.layers[1].mlp.fc1.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    model(**batch.inputs)
    handle.remove()
    torch.testing.assert_close(mean_inputs(scorer, [UP])[UP], (changes + seen[0])[0, 0].detach())
    at_each = mean_inputs(scorer, [UP], at_each_position=True)[UP]
    torch.testing.assert_close(at_each, seen[0].mean(0).detach())


def by_name(recipe: strop.Recipe, folder: Path, out: Path) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return what the base, the base with a recipe on, and its baked checkpoint say of some images."""
    strop.bake(folder, recipe, out)
    pixels = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    base, baked = (ViTForImageClassification.from_pretrained(place).eval() for place in (folder, out))
    with torch.no_grad():
        plain = base(pixel_values=pixels).logits
        with strop.applied(base, recipe):
            edited = base(pixel_values=pixels).logits
        return plain, edited, baked(pixel_values=pixels).logits


def test_a_search_proves_its_choice_and_its_recipe_bakes_with_the_processor(task: Task, tmp_path: Path) -> None:
    folder = save_vit(tmp_path / "vit")
    plan = strop.SearchPlan(
        strategy="exhaustive", matrix_types=(MatrixType.UP, MatrixType.DOWN), rank_fractions=(0.1, 0.5)
    )
    found = strop.search(folder, task, plan)
    assert len(found.trials) == 9  # and one without an edit
    assert found.result.price is not None
    assert "does not predict the next token" in str(found.result.price.reason)
    model, processor = strop.load_image_classifier(folder)
    assert found.recipe.interventions
    with strop.applied(model, found.recipe):
        again = strop.evaluate(model, processor, task)
    assert found.result.edited["test"].accuracy == again.accuracy
    plain, edited, baked = by_name(found.recipe, folder, tmp_path / "baked")
    torch.testing.assert_close(baked, edited, atol=0, rtol=0)
    assert not torch.allclose(plain, edited)
    assert strop.evaluate(tmp_path / "baked", task).mean_loss == pytest.approx(again.mean_loss)


def test_a_gradient_guides_a_search_and_a_pruning_and_a_sharpening(task: Task) -> None:
    model, processor = make_vit(), make_processor()
    guided = strop.search(model, processor, task, strop.SearchPlan(top_matrices=2))
    assert len({trial.key.candidate["matrix_type"] for trial in guided.trials if trial.key.candidate}) <= 2
    pruned = strop.prune(model, processor, task, strop.PrunePlan(iterate=1, fractions=(0.05,), counterfactual="mean"))
    assert pruned.result.command == "prune"
    paper = strop.prune(model, processor, task, strop.PrunePlan.paper())  # a bias at each patch, for all have as many
    assert paper.result.command == "prune"
    sharpened = strop.sharpen(model, processor, task, strop.SharpenPlan(steps=1))
    assert sharpened.result.edited["select"].loss <= sharpened.result.base["select"].loss


def test_what_goes_with_text_is_refused(task: Task) -> None:
    model, processor = make_vit(), make_processor()
    for plan, said in (
        (
            strop.PrunePlan(counterfactual="pairs"),
            "'pairs' swaps prompts of a language model, and a classifier's examples",
        ),
        (strop.PrunePlan(steps=2), "steps above 1 (--steps) begin at embeddings; take 1."),
        (strop.PrunePlan(price_weight=1.0), "ViTForImageClassification writes no text of its own"),
    ):
        with pytest.raises(UsageError) as raised:
            strop.prune(model, processor, task, plan)
        assert said in str(raised.value)
    with pytest.raises(UsageError, match="has labels, and a classifier writes no text that drift"):
        strop.sharpen(model, processor, task, strop.SharpenPlan(drift=0.5))
    guard = strop.Guard.parse(f"{__file__}:2%")
    with pytest.raises(UsageError, match="is a text, and ViTForImageClassification looks at images and reads none"):
        strop.search(model, processor, task, options=strop.RunOptions(guards=(guard,)))


def test_a_classifier_of_texts_is_searched_and_pruned_too(
    tiny_classifier: Any, small_tokenizer: Any, cities: Callable[..., Path]
) -> None:
    model, task = tiny_classifier("bert"), load_task(cities())
    limits: dict[str, Any] = {"select_limit": 16, "test_limit": 16}
    found = strop.search(model, small_tokenizer, task, strop.SearchPlan(top_matrices=1, gradient_examples=8, **limits))
    with strop.applied(model, found.recipe):
        again = strop.evaluate(model, small_tokenizer, task, limit=16)
    assert found.result.edited["test"].accuracy == again.accuracy
    plan = strop.PrunePlan(iterate=1, fractions=(0.05,), effect_examples=8, **limits)
    assert strop.prune(model, small_tokenizer, task, plan).result.command == "prune"
    by_place = SingularValuePruning(WeightSite(0, MatrixType.UP), (0,), "position")
    biases = [{"bias": torch.zeros(3, 48)}]
    with (
        strop.applied(model, strop.Recipe.of(model, [by_place], tensors=biases)),
        pytest.raises(InterventionError, match="holds for sequences of 3 tokens, and these examples have"),
    ):
        strop.evaluate(model, small_tokenizer, task)
    position = strop.PrunePlan(bias="position", iterate=1, effect_examples=8, **limits)
    with pytest.raises(UsageError, match="A bias at each position needs examples of one length"):
        strop.prune(model, small_tokenizer, task, position)


def test_a_run_is_not_gone_on_with_where_images_are_shown_otherwise(task: Task, tmp_path: Path) -> None:
    model, processor, other = make_vit(), make_processor(), make_processor()
    other.image_std = (0.25,)
    plan = strop.SearchPlan(strategy="exhaustive", layers=(1,), matrix_types=(MatrixType.UP,), rank_fractions=(0.5,))
    options = strop.RunOptions(out=tmp_path / "run")
    first = strop.search(model, processor, task, plan, options)
    again = dataclasses.replace(options, resume=True)
    assert strop.search(model, make_processor(), task, plan, again).result.edited == first.result.edited
    with pytest.raises(RunError, match="began with other inputs: the image processor has changed since"):
        strop.search(model, other, task, plan, again)
