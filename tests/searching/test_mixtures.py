"""The methods a gradient guides, on mixtures of experts and on state-space models."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.fixtures.mixtures import FAMILIES, make_described

from strop.anatomy import Anatomy, MatrixType, WeightSite
from strop.errors import UsageError
from strop.interventions import SingularValuePruning, SpectrumScaling
from strop.proving import Assignment, DriftText, RunOptions
from strop.recipe import Recipe, applied
from strop.scoring import Scorer
from strop.searching import PrunePlan, SearchPlan, SharpenPlan, prune, search, sharpen
from strop.searching.eigenpruning import Pruner
from strop.tasks import Task

T = MatrixType
SEARCH = SearchPlan(top_matrices=2, finalists=1, max_edits=1, gradient_examples=6, select_limit=8, test_limit=8)
PRUNE = PrunePlan(fractions=(0.005, 0.02), iterate=1, effect_examples=6, select_limit=8, test_limit=8)
SHARPEN = SharpenPlan(
    precondition="sign", step=0.02, steps=1, drift=None, examples=6, select_limit=8, test_limit=8
)  # fmt: skip


def options_of(name: str, **given: Any) -> RunOptions:
    return RunOptions(
        family=FAMILIES[name],
        rivals=False,
        drift_text=DriftText("own", "The city of Lyon is in France. " * 40),
        **given,
    )


@pytest.fixture
def answering_little(small_tokenizer: Any) -> Any:
    """A maker of tiny models that always begin one of the small facts' answers."""

    def make(name: str) -> Any:
        model = make_described(name)
        head = model.get_output_embeddings().weight
        silent = torch.ones(head.shape[0], dtype=torch.bool)
        silent[[index for answer in (" France", " Brazil") for index in small_tokenizer(answer)["input_ids"]]] = False
        with torch.no_grad():
            head[silent] = 0.0
        return model

    return make


def loss_with(model: Any, tokenizer: Any, task: Task, recipe: Recipe, name: str) -> float:
    scorer = Scorer(
        model, tokenizer, task.examples("select", limit=8), "exact", anatomy=Anatomy.of(model, family=FAMILIES[name])
    )
    with applied(model, recipe, family=FAMILIES[name]):
        return float(scorer.evaluate().loss.mean())


@pytest.mark.parametrize("name", ["gpt_oss", "falcon_h1"])
def test_a_search_proposes_and_keeps_experts_and_mixers(
    answering_little: Any, small_tokenizer: Any, task: Task, name: str, tmp_path: Path
) -> None:
    model = answering_little(name)
    found = search(model, small_tokenizer, task, SEARCH, options_of(name, out=tmp_path / "run"))
    tried = {WeightSite.from_json(trial.key.candidate) for trial in found.trials if trial.key.candidate}
    assert len(tried) == 2
    assert Recipe.load(tmp_path / "run" / "recipe") == found.recipe
    if found.recipe.interventions:
        edited = found.result.edited["select"].loss
        assert loss_with(model, small_tokenizer, task, found.recipe, name) == pytest.approx(edited, rel=1e-4)


@pytest.mark.parametrize("name", ["mixtral", "deepseek_v3"])
def test_a_pruning_takes_components_of_experts_and_mixers(
    answering_little: Any, small_tokenizer: Any, task: Task, name: str
) -> None:
    model = answering_little(name)
    before = {own: tensor.clone() for own, tensor in model.state_dict().items()}
    found = prune(model, small_tokenizer, task, PRUNE, options_of(name))
    assert all(isinstance(edit, SingularValuePruning) for edit in found.recipe.interventions)
    assert any(trial.key.candidate for trial in found.trials)
    assert all(torch.equal(tensor, before[own]) for own, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    ("name", "precondition"), [("mixtral", "fisher-sign"), ("deepseek_v3", "sign"), ("mamba", "sign")]
)
def test_a_sharpening_moves_the_spectra_of_all_matrices_and_lowers_the_loss(
    answering_little: Any, small_tokenizer: Any, task: Task, name: str, precondition: Any, tmp_path: Path
) -> None:
    model = answering_little(name)
    plan = (
        SHARPEN if precondition == "sign" else dataclasses.replace(SHARPEN, precondition=precondition, fisher_texts=2)
    )
    found = sharpen(model, small_tokenizer, task, plan, options_of(name, out=tmp_path / "run"))
    sites = {edit.site for edit in found.recipe.interventions if isinstance(edit, SpectrumScaling)}
    reached = set(Anatomy.of(model, family=FAMILIES[name]).sites())
    assert len(sites) > 0.8 * len(reached)
    assert found.result.edited["select"].loss < found.result.base["select"].loss
    recipe = Recipe.load(tmp_path / "run" / "recipe")
    assert recipe == found.recipe
    edited = found.result.edited["select"].loss
    assert loss_with(model, small_tokenizer, task, recipe, name) == pytest.approx(edited, rel=1e-4)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"bias": "mean"}, r"layer 0 down expert 0: .* bias 'mean' needs that; take bias 'none' \(--bias none\)"),
        ({"counterfactual": "roll"}, "counterfactual 'roll' needs that; take counterfactual 'zero'"),
        ({"reduction": "mean-abs"}, "reduction 'mean-abs' needs that"),
    ],
)
def test_a_pruning_that_needs_an_experts_inputs_is_refused_before_anything_is_measured(
    answering_little: Any, small_tokenizer: Any, task: Task, changes: dict[str, Any], complaint: str
) -> None:
    model, options = answering_little("mixtral"), options_of("mixtral")
    plan = dataclasses.replace(PRUNE, matrix_types=(T.DOWN,), **changes)
    Anatomy.of(model, family=options.family)  # which is held to the model once
    model.forward = None
    with pytest.raises(UsageError, match=complaint):
        prune(model, small_tokenizer, task, plan, options)


def test_attention_whose_heads_do_not_make_up_a_matrix_is_pruned_whole(
    answering_little: Any, small_tokenizer: Any, task: Task
) -> None:
    model, options = answering_little("deepseek_v3"), options_of("deepseek_v3")
    given = Assignment.of(model, small_tokenizer, task, options)
    sites = Pruner(given, PRUNE).sites
    assert WeightSite(0, T.OUTPUT) in sites  # its heads are longer than those of queries
    falcon = answering_little("falcon_h1")
    given = Assignment.of(falcon, small_tokenizer, task, options_of("falcon_h1"))
    assert WeightSite(0, T.OUTPUT, head=3) in Pruner(given, PRUNE).sites
