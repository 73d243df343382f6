"""Every method on an encoder-decoder: effects in each stack against autograd, edits that help, baked and reloaded."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.fixtures.paired import FAMILIES, T5, make_tiny_paired, paired_tokenizer

import strop
from strop import PrunePlan, SearchPlan, TrainPlan
from strop.anatomy import Anatomy, MatrixType, Stack, StreamSite, WeightSite
from strop.errors import InterventionError, UsageError
from strop.interventions import LowRankEdit, Positions
from strop.linalg import decompose
from strop.proving import RunOptions
from strop.recipe import Recipe
from strop.scoring import Scorer
from strop.searching import EffectPlan, measure_effects
from strop.tasks import Example, Task
from strop.training.objective import objective_of

pytestmark = pytest.mark.thorough

TOKENIZER = paired_tokenizer()
EXAMPLES = [
    Example("The city of Lyon is in", " France"),
    Example("Paris", " Paris is a city"),
    Example("The city of Curitiba, which is large, is in", " Brazil"),
    Example("The sky is", " red is"),
]
SITES = [
    WeightSite(1, MatrixType.UP, stack=Stack.ENCODER),
    WeightSite(0, MatrixType.VALUE, stack=Stack.ENCODER),
    WeightSite(2, MatrixType.DOWN, stack=Stack.DECODER),
    WeightSite(0, MatrixType.KEY, stack=Stack.DECODER),
    WeightSite(1, MatrixType.QUERY, stack=Stack.CROSS),
    WeightSite(2, MatrixType.VALUE, stack=Stack.CROSS),
]
QUICK: dict[str, Any] = {"epochs": 8, "batch_size": 4, "accumulate": 1, "learning_rate": 0.1}


def cities() -> Task:
    """Return a task whose answer depends on the prompt's name."""
    names = [(f"{one}{two}", said) for two in range(12) for one, said in (("Lyon", " France"), ("x", " red is"))]
    examples = [Example(f"{name} is in", said, row=row + 1) for row, (name, said) in enumerate(names)]
    splits = {"train": tuple(examples[:12]), "select": tuple(examples[12:16]), "test": tuple(examples[16:])}
    return Task("cities", "exact", splits)


@pytest.mark.parametrize("model_type", ["t5", "bart"])
def test_effects_in_each_stack_are_those_of_autograd_padding_or_not(model_type: str) -> None:
    model, tokenizer = make_tiny_paired(model_type), paired_tokenizer(model_type)
    anatomy = Anatomy.of(model, family=FAMILIES[model_type])
    scorer = Scorer(model, tokenizer, EXAMPLES, "exact", anatomy=anatomy)
    found = measure_effects(scorer, SITES, decompose=decompose)
    begun = {"t5": [1], "bart": [2, 0]}[model_type]
    losses = []
    for example in EXAMPLES:
        answer = tokenizer(example.answer.lstrip(), add_special_tokens=False)["input_ids"]
        ids = torch.tensor([tokenizer(example.prompt)["input_ids"]])
        logits = model(input_ids=ids, decoder_input_ids=torch.tensor([begun + answer[:-1]])).logits
        said = logits[0, len(begun) - 1 :].log_softmax(-1)
        losses.append(-said[range(len(answer)), answer].mean())
    weights = [anatomy.parameter(model, site) for site in SITES]
    gradients = torch.autograd.grad(torch.stack(losses).mean(), weights)
    for site, weight, gradient in zip(SITES, weights, gradients, strict=True):
        u, s, vh = torch.linalg.svd(weight.detach().double(), full_matrices=False)
        expected = -s * torch.einsum("oi,oj,ij->i", u, gradient.double(), vh)
        np.testing.assert_allclose(found[site].loss_change.numpy(), expected.numpy(), rtol=2e-3, atol=1e-6)


@pytest.mark.parametrize("counterfactual", ["mean", "roll"])
def test_effects_of_means_and_of_examples_swapped_leave_padding_out(counterfactual: Any) -> None:
    model = make_tiny_paired()
    anatomy, plan = Anatomy.of(model, family=T5), EffectPlan(counterfactual=counterfactual)
    scorer = Scorer(model, TOKENIZER, EXAMPLES, "exact", anatomy=anatomy, fewest=2)
    found = measure_effects(scorer, SITES, decompose=decompose, plan=plan)
    (batch,) = scorer.batches
    batch.input_ids[~batch.real] = 200
    decoded = batch.beside["decoder_input_ids"]
    decoded[~batch.real_at(SITES[2])] = 200
    again = measure_effects(scorer, SITES, decompose=decompose, plan=plan)
    for site in SITES:
        np.testing.assert_allclose(found[site].loss_change, again[site].loss_change, rtol=1e-4, atol=1e-8)


def test_steps_from_embeddings_are_refused() -> None:
    model = make_tiny_paired()
    scorer = Scorer(model, TOKENIZER, EXAMPLES, "exact", anatomy=Anatomy.of(model, family=T5))
    with pytest.raises(UsageError) as refused:
        measure_effects(scorer, SITES, decompose=decompose, plan=EffectPlan(steps=2))
    assert (
        str(refused.value) == "A T5 model is always run whole, and steps above 1 (--steps) begin at embeddings; take 1."
    )


@pytest.mark.parametrize(
    ("stack", "matrix_type", "path"),
    [
        (None, MatrixType.UP, "encoder.block.{}.layer.1.DenseReluDense.wi"),
        (Stack.DECODER, MatrixType.UP, "decoder.block.{}.layer.2.DenseReluDense.wi"),
        (Stack.CROSS, MatrixType.VALUE, "decoder.block.{}.layer.1.EncDecAttention.v"),
    ],
)
def test_a_search_in_a_stack_edits_that_stack_and_bakes(
    stack: Stack | None, matrix_type: MatrixType, path: str, tmp_path: Path
) -> None:
    model, task = make_tiny_paired(), cities()
    plan = SearchPlan(matrix_types=(matrix_type,), stack=stack, top_matrices=2, gradient_examples=4)
    found = strop.search(model, TOKENIZER, task, plan, RunOptions(family=T5, rivals=False))
    (edit,) = found.recipe.interventions
    assert edit.site.stack is (stack or Stack.ENCODER)
    assert found.result.edited["select"].loss < found.result.base["select"].loss
    with strop.applied(model, found.recipe, family=T5):
        applied = strop.evaluate(model, TOKENIZER, task, family=T5)
    assert applied.mean_loss == pytest.approx(found.result.edited["test"].loss)
    strop.bake(model, found.recipe, tmp_path / "baked", tokenizer=TOKENIZER, family=T5)
    again, tokenizer = strop.load(tmp_path / "baked")
    np.testing.assert_allclose(strop.evaluate(again, tokenizer, task, family=T5).loss, applied.loss, rtol=1e-5)
    changed = [name for name, tensor in again.state_dict().items() if not torch.equal(tensor, model.state_dict()[name])]
    assert changed == [f"{path.format(edit.site.layer)}.weight"]


def test_pruning_lowers_the_loss_of_held_out_answers() -> None:
    plan = PrunePlan(matrix_types=(MatrixType.DOWN,), stack=Stack.DECODER)
    found = strop.prune(make_tiny_paired(), TOKENIZER, cities(), plan, RunOptions(family=T5, rivals=False))
    assert found.result.edited["test"].loss < found.result.base["test"].loss
    assert {edit.site.stack for edit in found.recipe.interventions} == {Stack.DECODER}


@pytest.mark.parametrize(
    "plan",
    [
        TrainPlan(rank=4, layers=(0, 1), positions=Positions(1, 1), **QUICK),
        TrainPlan(rank=4, layers=(1, 2), positions=Positions(reach="all"), stack=Stack.DECODER, **QUICK),
        TrainPlan(method="spectrum", stack=Stack.CROSS, **QUICK),
    ],
    ids=["encoder", "decoder", "cross"],
)
def test_states_and_weights_learn_in_each_stack(plan: TrainPlan) -> None:
    model, task = make_tiny_paired(), cities()
    found = strop.train(model, TOKENIZER, task, plan, RunOptions(family=T5, rivals=False))
    assert found.result.edited["test"].loss < 0.9 * found.result.base["test"].loss
    with strop.applied(model, found.recipe, family=T5):
        again = strop.evaluate(model, TOKENIZER, task, family=T5)
        assert again.mean_loss == pytest.approx(found.result.edited["test"].loss)


@pytest.mark.parametrize("stack", [Stack.ENCODER, Stack.DECODER])
@pytest.mark.parametrize("beams", [1, 2])
def test_generation_edits_what_scoring_edits(stack: Stack, beams: int) -> None:
    model = make_tiny_paired()
    positions = Positions(0, 1) if stack is Stack.ENCODER else Positions(reach="all")
    edit = LowRankEdit(StreamSite(1, stack=stack), "loreft", rank=4, positions=positions)
    torch.manual_seed(1)
    tensors = edit.initial_tensors((32, 32), init="paper", generator=torch.Generator().manual_seed(0))
    recipe = Recipe.of(model, [edit], tensors=[tensors], family=T5)
    ids = [TOKENIZER(text)["input_ids"] for text in ("The city of Lyon is in", "Paris")]
    width = max(map(len, ids))
    padded = torch.tensor([one + [1] * (width - len(one)) for one in ids])
    mask = torch.tensor([[1] * len(one) + [0] * (width - len(one)) for one in ids])
    with strop.applied(model, recipe, family=T5), torch.no_grad():
        written = model.generate(padded, attention_mask=mask, max_new_tokens=4, num_beams=beams, do_sample=False)
        for row, own in enumerate(ids):
            alone = model.generate(torch.tensor([own]), max_new_tokens=4, num_beams=beams, do_sample=False)[0]
            assert written[row, : len(alone)].tolist() == alone.tolist()
            if beams == 1:
                begun = alone[:-1]  # greedy: each token is what the whole pass says
                said = model(input_ids=torch.tensor([own]), decoder_input_ids=begun[None]).logits[0].argmax(-1)
                assert said.tolist() == alone[1:].tolist()


def test_a_decoder_has_no_prompt_to_edit() -> None:
    model = make_tiny_paired()
    edit = LowRankEdit(StreamSite(1, stack=Stack.DECODER), "loreft", rank=4, positions=Positions(1, 1))
    recipe = Recipe.of(model, [edit], tensors=[edit.initial_tensors((32, 32))], family=T5)
    with pytest.raises(InterventionError) as refused, strop.applied(model, recipe, family=T5):
        pass
    assert str(refused.value) == (
        "decoder layer 1 block: the encoder reads the prompt, and a decoder has none to edit at f1+l1; edit at positions all, "
        "or in the encoder."
    )


def test_what_is_learned_is_the_mean_loss_of_answer_tokens() -> None:
    model, task = make_tiny_paired(), cities()
    anatomy = Anatomy.of(model, family=T5)
    objective = objective_of(model, TOKENIZER, task, limit=None, anatomy=anatomy)
    batch = objective.collate([objective.examples[index] for index in range(4)])
    loss = objective.loss(model, batch)
    expected, count = 0.0, 0
    for example in task.examples("train")[:4]:
        ids, answer = (TOKENIZER(text)["input_ids"] for text in (example.prompt, example.answer.lstrip()))
        labels = torch.tensor([answer[:-1]])  # without the end of text
        told = model(input_ids=torch.tensor([ids]), labels=labels)  # transformers shifts them behind the start token
        expected += float(told.loss.detach()) * labels.numel()
        count += labels.numel()
    assert loss.count == count
    assert float(loss.total.detach()) == pytest.approx(expected, rel=1e-5)
    generated = objective_of(model, TOKENIZER, dataclasses.replace(task, score="generate"), limit=None, anatomy=anatomy)
    assert generated.tokens == objective.tokens + len(task.examples("train"))  # the end of text is learned
