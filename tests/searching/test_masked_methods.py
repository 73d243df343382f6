"""Every method on a model that fills masks: effects against autograd, edits that mend a damaged matrix, baked and reloaded."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.fixtures.masked import FAMILIES, make_tiny_masked, masked_tokenizer, saying_words

import strop
from strop import PrunePlan, SearchPlan, SharpenPlan, TrainPlan
from strop.anatomy import Anatomy, MatrixType, WeightSite
from strop.errors import UsageError
from strop.interventions import Positions
from strop.linalg import decompose
from strop.proving import RunOptions
from strop.scoring import Scorer
from strop.searching import EffectPlan, measure_effects
from strop.searching.averages import mean_inputs
from strop.tasks import Example, Task

TOKENIZER = masked_tokenizer()
NAMES = [f"{one}{two}" for one in ("Lyon", "Curitiba", "The city of ", "is ", "x") for two in range(12)]
DAMAGED = "roberta.encoder.layer.1.intermediate.dense.weight"


QUICK: dict[str, Any] = {"epochs": 8, "batch_size": 6, "accumulate": 1, "learning_rate": 0.05}


def sound_and_damaged() -> tuple[Any, Any]:
    """Return a model with a matrix of rank 4, and the same model with small singular values beside those four."""
    sound, damaged = (saying_words(make_tiny_masked(), TOKENIZER) for _ in range(2))
    for model, share in ((sound, 0.0), (damaged, 0.45)):
        weight = model.get_parameter(DAMAGED)
        u, s, vh = torch.linalg.svd(weight.detach(), full_matrices=False)
        s[:4] *= 3
        s[4:] = share * s[3] * torch.linspace(1, 0.5, len(s) - 4)
        with torch.no_grad():
            weight.copy_(u @ torch.diag(s) @ vh)
    return sound, damaged


def task_of(model: Any, *, after: str = ".") -> Task:
    """Return a task whose answers are what a model fills in, in three splits of prompts of several lengths."""
    examples = []
    for row, name in enumerate(NAMES):
        ids = torch.tensor([TOKENIZER(f"{name} is in<mask>{after}")["input_ids"]])
        with torch.no_grad():
            likeliest = int(model(input_ids=ids).logits[0].argmax(-1)[(ids[0] == 3).nonzero()[0, 0]])
        examples.append(Example(f"{name} is in", TOKENIZER.decode([likeliest]), row=row + 1, after=after))
    return Task(
        "made",
        "first_token",
        {"train": tuple(examples[::3]), "select": tuple(examples[1::3]), "test": tuple(examples[2::3])},
    )


def by_city(*answers: str) -> Task:
    """Return a task whose answer depends on the prompt's name, and not on what the model fills in."""
    names = [f"{one}{two}" for two in range(12) for one in ("Lyon", "Curitiba", "x")]
    examples = [
        Example(f"{name} is in", answers[row % len(answers)], row=row + 1, after=".") for row, name in enumerate(names)
    ]
    splits = {"train": tuple(examples[:18]), "select": tuple(examples[18:24]), "test": tuple(examples[24:])}
    return Task("cities", "first_token", splits)


@pytest.fixture(scope="module")
def pair() -> tuple[Any, Task]:
    """A damaged model, and the task of the sound one's answers."""
    sound, damaged = sound_and_damaged()
    return damaged, task_of(sound)


def test_effects_are_those_of_autograd_padding_or_not(pair: tuple[Any, Task]) -> None:
    model, task = pair
    scorer = Scorer(model, TOKENIZER, task.examples("train")[:8], "exact")
    assert not all(bool(batch.real.all()) for batch in scorer.batches)
    site = WeightSite(1, MatrixType.UP)
    found = measure_effects(scorer, [site], decompose=decompose)[site]
    weight = model.get_parameter(DAMAGED)
    losses = []
    for example in task.examples("train")[:8]:
        ids = torch.tensor([TOKENIZER(f"{example.prompt}<mask>.")["input_ids"]])
        (answer,) = TOKENIZER(example.answer, add_special_tokens=False)["input_ids"]
        logits = model(input_ids=ids).logits[0, (ids[0] == 3).nonzero()[0, 0]]
        losses.append(-logits.log_softmax(-1)[answer])
    (gradient,) = torch.autograd.grad(torch.stack(losses).mean(), weight)
    u, s, vh = torch.linalg.svd(weight.detach().double(), full_matrices=False)
    expected = -s * torch.einsum("oi,oj,ij->i", u, gradient.double(), vh)
    np.testing.assert_allclose(found.loss_change.numpy(), expected.numpy(), rtol=1e-3, atol=1e-7)


def test_effects_of_a_block_that_is_run_in_every_layer_are_added_up(pair: tuple[Any, Task]) -> None:
    model, examples = make_tiny_masked("albert"), pair[1].examples("train")[:8]
    anatomy = Anatomy.of(model, family=FAMILIES["albert"])
    scorer = Scorer(model, TOKENIZER, examples, "exact", anatomy=anatomy)
    site = WeightSite(0, MatrixType.DOWN)
    found = measure_effects(scorer, [site], decompose=decompose)[site]
    losses, seen = [], []
    weight = anatomy.parameter(model, site)
    handle = anatomy.module(model, site).register_forward_hook(lambda _module, inputs, _output: seen.append(inputs[0]))
    for example in examples:
        ids = torch.tensor([TOKENIZER(f"{example.prompt}<mask>.")["input_ids"]])
        (answer,) = TOKENIZER(example.answer, add_special_tokens=False)["input_ids"]
        logits = model(input_ids=ids).logits[0, (ids[0] == 3).nonzero()[0, 0]]
        losses.append(-logits.log_softmax(-1)[answer])
    handle.remove()
    (gradient,) = torch.autograd.grad(torch.stack(losses).mean(), weight)
    u, s, vh = torch.linalg.svd(weight.detach().double(), full_matrices=False)
    expected = -s * torch.einsum("oi,oj,ij->i", u, gradient.double(), vh)
    np.testing.assert_allclose(found.loss_change.numpy(), expected.numpy(), rtol=1e-3, atol=1e-6)
    assert len(seen) == 3 * len(examples)
    means = mean_inputs(scorer, [site])[site]
    torch.testing.assert_close(means, torch.cat([one[0] for one in seen]).mean(0).detach(), rtol=1e-4, atol=1e-5)


def test_effects_of_means_and_of_examples_swapped_leave_padding_out(pair: tuple[Any, Task]) -> None:
    model, task = pair
    site = WeightSite(2, MatrixType.DOWN)
    for counterfactual in ("mean", "roll"):
        plan = EffectPlan(counterfactual=counterfactual, steps=2)  # type: ignore[arg-type]
        scorer = Scorer(model, TOKENIZER, task.examples("train")[:8], "exact", fewest=2)
        found = measure_effects(scorer, [site], decompose=decompose, plan=plan)[site].loss_change
        for batch in scorer.batches:  # what padding holds is nobody's business
            batch.input_ids[~batch.real] = 200
        again = measure_effects(scorer, [site], decompose=decompose, plan=plan)[site].loss_change
        np.testing.assert_allclose(found.numpy(), again.numpy(), rtol=1e-5, atol=1e-9)


def test_a_search_mends_the_damaged_matrix_and_its_recipe_bakes(pair: tuple[Any, Task], tmp_path: Path) -> None:
    model, task = pair
    found = strop.search(
        model, TOKENIZER, task, SearchPlan(matrix_types=(MatrixType.UP,)), RunOptions(out=tmp_path / "run")
    )
    base, edited = (side["test"].accuracy for side in (found.result.base, found.result.edited))
    assert edited > base
    assert strop.evaluate(model, TOKENIZER, task).accuracy == base
    assert found.result.price is not None
    assert found.result.price.reason == (
        "RobertaForMaskedLM does not predict the next token, and drift is measured on that."
    )
    with strop.applied(model, found.recipe):
        applied = strop.evaluate(model, TOKENIZER, task)
    assert applied.accuracy == edited
    strop.bake(model, found.recipe, tmp_path / "baked", tokenizer=TOKENIZER)
    again, tokenizer = strop.load(tmp_path / "baked")
    np.testing.assert_allclose(strop.evaluate(again, tokenizer, task).loss, applied.loss, rtol=1e-5)


def test_pruning_and_sharpening_gain_on_held_out_masks(pair: tuple[Any, Task]) -> None:
    model, task = pair
    where: dict[str, Any] = {"layers": (1,), "matrix_types": (MatrixType.UP,)}
    pruned = strop.prune(model, TOKENIZER, task, PrunePlan(**where))
    sharpened = strop.sharpen(model, TOKENIZER, task, SharpenPlan(precondition="sign", drift=None, steps=3, **where))
    for found in (pruned, sharpened):
        assert found.result.edited["test"].loss < found.result.base["test"].loss


@pytest.mark.parametrize(
    "plan",
    [
        TrainPlan(rank=4, layers=(0, 1), positions=Positions(reach="all"), **QUICK),
        TrainPlan(method="spectrum", **QUICK),
    ],
)
def test_states_and_weights_learn_what_masks_hide(pair: tuple[Any, Task], plan: TrainPlan) -> None:
    model, _ = pair
    task = by_city(" France", " Brazil", " red")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found = strop.train(model, TOKENIZER, task, plan)
    assert found.result.edited["test"].loss < 0.5 * found.result.base["test"].loss
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    with strop.applied(model, found.recipe):
        assert strop.evaluate(model, TOKENIZER, task).mean_loss == pytest.approx(found.result.edited["test"].loss)


def test_an_edit_at_the_last_prompt_tokens_falls_on_the_end_of_the_text_called_as_scored(
    pair: tuple[Any, Task],
) -> None:
    model, task = pair
    plan = TrainPlan(
        rank=2, layers=(1,), positions=Positions(0, 1), epochs=1, batch_size=4, accumulate=1, learning_rate=0.02
    )
    found = strop.train(model, TOKENIZER, task, plan)
    example = task.examples("test")[0]
    ids = torch.tensor([TOKENIZER(f"{example.prompt}<mask>.")["input_ids"]])
    (answer,) = TOKENIZER(example.answer, add_special_tokens=False)["input_ids"]
    with strop.applied(model, found.recipe), torch.no_grad():
        logits = model(input_ids=ids).logits[0, (ids[0] == 3).nonzero()[0, 0]]  # no labels, no prompt_lengths
        scored = strop.evaluate(model, TOKENIZER, task)
    assert -float(logits.log_softmax(-1)[answer]) == pytest.approx(float(scored.loss[0]), rel=1e-4)


def test_what_the_base_writes_cannot_be_asked(pair: tuple[Any, Task]) -> None:
    model, task = pair
    with pytest.raises(UsageError) as refused:
        strop.sharpen(model, TOKENIZER, task)
    assert str(refused.value) == (
        "RobertaForMaskedLM writes no text of its own, which a bound on drift is measured on: take drift None (--drift 0) and "
        "precondition 'sign' or 'none'."
    )
    with pytest.raises(UsageError) as refused:
        strop.search(model, TOKENIZER, task, SearchPlan(price_weight=1.0))
    assert str(refused.value) == (
        "RobertaForMaskedLM writes no text of its own, and what that resists is asked for: leave out price_weight "
        "(--price-weight), and sharpen with precondition 'sign' or 'none' (--precondition)."
    )
