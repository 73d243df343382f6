"""A sharpening: its gradient is the true one, its steps lower the loss, its drift stays in bounds, a resume changes nothing."""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.fixtures.runs import Notes, figures_of

from strop.anatomy import Anatomy, MatrixType, WeightSite
from strop.checkpoints import identity
from strop.errors import DecompositionError, UsageError
from strop.interventions import SingularValuePruning, SpectrumScaling, attach_interventions
from strop.linalg import decompose
from strop.proving import Budget, Guard, RunOptions
from strop.recipe import Recipe
from strop.scoring import Scorer
from strop.searching import EffectPlan, Effects, SharpenPlan, measure_effects, sharpen
from strop.searching.sharpening.spectrum import Spectrum, direction_of
from strop.tasks import Task

PLAN = SharpenPlan(precondition="sign", step=0.02, steps=3, drift=None)


@pytest.mark.parametrize("model_type", ["llama", "phi3", "gpt2", "gpt_neox"])
def test_the_gradient_is_that_of_the_changes_also_after_a_step(
    model_type: str, tiny: Callable[..., Any], small_tokenizer: Any, task: Task
) -> None:
    model = tiny(model_type)
    anatomy = Anatomy.of(model)
    sites = anatomy.sites()
    held = {site: decompose(anatomy.read_weight(model, site).clone()) for site in sites}
    generator = torch.Generator().manual_seed(0)
    change = [{"change": 0.05 * torch.randn(len(held[site].singular_values), generator=generator)} for site in sites]
    scorer = Scorer(model, small_tokenizer, task.examples("train"), "exact", anatomy=anatomy)
    edits = [SpectrumScaling(site) for site in sites]
    attachment = attach_interventions(model, edits, tensors=change, anatomy=anatomy)
    found = measure_effects(scorer, sites, decompose=decompose, decompositions=held.__getitem__)
    attachment.detach()
    learning = attach_interventions(model, edits, tensors=change, anatomy=anatomy, trainable=True)
    parameters = [module.learned["change"] for module in learning.modules]
    loss = torch.zeros(())
    for batch in scorer.batches:
        logits = model(input_ids=batch.input_ids).logits[batch.rows, batch.columns].float()
        each = torch.nn.functional.cross_entropy(logits, batch.targets, reduction="none")
        loss = loss + (each / torch.bincount(batch.rows)[batch.rows]).sum() / scorer.example_count
    for site, expected in zip(sites, torch.autograd.grad(loss, parameters), strict=True):
        torch.testing.assert_close(-found[site].loss_change.float(), expected, atol=2e-5, rtol=2e-3)
    learning.detach()


@pytest.mark.parametrize("precondition", ["fisher-sign", "sign", "fisher", "none"])
def test_steps_lower_the_loss_and_the_recipe_holds_them(
    precondition: Any, answering: Callable[..., Any], small_tokenizer: Any, task: Task, tmp_path: Path
) -> None:
    model = answering()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    texts = {"fisher_texts": 4} if "fisher" in precondition else {}
    plan = dataclasses.replace(PLAN, precondition=precondition, **texts)
    found = sharpen(model, small_tokenizer, task, plan, RunOptions(out=tmp_path / "run"))
    assert found.result.command == "sharpen"
    base, edited = found.result.base, found.result.edited
    assert edited["select"].loss < base["select"].loss
    assert found.recipe.interventions
    assert all(isinstance(edit, SpectrumScaling) for edit in found.recipe.interventions)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    kept = Recipe.load(tmp_path / "run" / "recipe")
    for edit, tensors in zip(kept.interventions, kept.tensors, strict=True):
        assert set(tensors) == ({"levels"} if precondition == "sign" else {"change"})
        assert (edit.step is None) == (precondition != "sign")
    assert len(found.result.edits) == 1


def test_no_step_goes_further_from_the_base_than_allowed(
    answering: Callable[..., Any], small_tokenizer: Any, task: Task
) -> None:
    free = sharpen(answering(), small_tokenizer, task, PLAN)
    assert free.result.price is not None
    assert free.result.price.drift is not None
    bound = free.result.price.drift.kl / 3
    notes = Notes()
    bounded = sharpen(
        answering(), small_tokenizer, task, dataclasses.replace(PLAN, drift=bound), RunOptions(progress=notes)
    )
    assert bounded.result.price is not None
    assert bounded.result.price.drift is not None
    assert 0 < bounded.result.price.drift.kl <= bound
    assert bounded.result.guards[0].bound == bound
    assert any("refused by the guard on drift" in line for line in notes.lines)


def test_a_sharpening_that_was_stopped_goes_on_to_the_same_end(
    answering: Callable[..., Any], small_tokenizer: Any, task: Task, tmp_path: Path
) -> None:
    plan = dataclasses.replace(PLAN, drift=1.0)
    whole = sharpen(answering(), small_tokenizer, task, plan, RunOptions(out=tmp_path / "whole"))
    options = RunOptions(out=tmp_path / "run", budget=Budget(evaluations=3))
    sharpen(answering(), small_tokenizer, task, plan, options)
    resumed = sharpen(
        answering(),
        small_tokenizer,
        task,
        plan,
        RunOptions(out=tmp_path / "run", resume=True, budget=Budget(evaluations=99)),
    )
    left, right = figures_of(whole), figures_of(resumed)
    for name in ("select", "test"):
        assert left["edited"][name] == right["edited"][name]
    for a, b in zip(whole.recipe.tensors, resumed.recipe.tensors, strict=True):
        assert all(torch.equal(a[name], b[name]) for name in a)


def test_after_another_recipe_it_goes_on_from_there(
    answering: Callable[..., Any], small_tokenizer: Any, task: Task
) -> None:
    first = sharpen(answering(), small_tokenizer, task, dataclasses.replace(PLAN, steps=1)).recipe
    found = sharpen(answering(), small_tokenizer, task, dataclasses.replace(PLAN, steps=1), RunOptions(after=first))
    assert found.recipe.interventions[: len(first.interventions)] == first.interventions
    assert len(found.recipe.interventions) > len(first.interventions)
    assert found.result.edited["select"].loss < found.result.start["select"].loss


def test_steps_of_several_sizes_are_written_as_multiples_of_the_smallest() -> None:
    from strop.anatomy import MatrixType, WeightSite

    site = WeightSite(0, MatrixType.UP)
    direction = {site: torch.tensor([1.0, -1.0, 0.0], dtype=torch.float64)}
    found = Spectrum.unchanged({site: 3}).after(direction, 0.008, in_units=True).after(direction, 0.004, in_units=True)
    (scaling,), (tensors,) = found.interventions()
    assert scaling == SpectrumScaling(site, 0.004)
    assert tensors["levels"].tolist() == [-3, 3, 0]
    torch.testing.assert_close(scaling.change(tensors), torch.tensor([-0.012, 0.012, 0.0]))


@pytest.mark.parametrize(("given", "kept"), [(0.5, 0.5), (5.0, 1.0)])
def test_of_two_bounds_on_drift_the_tighter_one_is_kept(
    answering: Callable[..., Any], small_tokenizer: Any, task: Task, given: float, kept: float
) -> None:
    plan = dataclasses.replace(PLAN, drift=1.0, steps=1)
    found = sharpen(answering(), small_tokenizer, task, plan, RunOptions(guards=(Guard.parse(f"drift:{given}"),)))
    assert [guard.bound for guard in found.result.guards] == [kept]


def test_all_weights_are_read_once_to_know_the_base(
    answering: Callable[..., Any], small_tokenizer: Any, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Any] = []
    weights = identity.own_parameters
    monkeypatch.setattr(identity, "own_parameters", lambda model: (read.append(model), weights(model))[1])
    plan = dataclasses.replace(PLAN, precondition="fisher-sign", drift=1.0, steps=1)
    model = answering()
    sharpen(model, small_tokenizer, task, plan, RunOptions())
    assert read == [model]


@pytest.mark.parametrize("unit", [0.13, 0.15, 0.3, 0.35])
def test_what_meets_a_bound_is_written_as_it_is_and_fits(unit: float) -> None:
    site = WeightSite(0, MatrixType.UP)
    spectrum = Spectrum.unchanged({site: 3})
    for _ in range(8):
        spectrum = spectrum.after({site: torch.tensor([1.0, -1.0, 0.0])}, unit, in_units=True)
    ((edit,), (tensors,)) = spectrum.interventions()
    edit.check(tensors, (3, 3))
    assert edit.change(tensors).tolist() == pytest.approx([-1.0, min(8 * unit, 4.0), 0.0])


def test_steps_after_one_that_met_a_bound_are_no_multiples_either() -> None:
    site = WeightSite(0, MatrixType.UP)
    spectrum = Spectrum.unchanged({site: 2})
    for size in (0.7, 0.7, 0.2):
        spectrum = spectrum.after({site: torch.tensor([1.0, 0.0])}, size, in_units=True)
    assert spectrum.unit is None


def test_signs_by_the_fisher_information_let_each_value_drift_alike() -> None:
    site = WeightSite(0, MatrixType.UP)
    gradient, fisher = {site: torch.tensor([3.0, -0.01, 5.0])}, {site: torch.tensor([4.0, 0.01, 1.0])}
    found = direction_of(gradient, "fisher-sign", fisher=fisher, damping=1e-9)[site]
    assert found.sign().tolist() == [1, -1, 1]
    drifts = fisher[site] * found**2
    torch.testing.assert_close(drifts, drifts[:1].expand(3), rtol=1e-4, atol=0)
    assert float(found.abs().mean()) == pytest.approx(1)


def test_what_is_no_number_does_not_move() -> None:
    site = WeightSite(0, MatrixType.UP)
    for precondition in ("sign", "none", "fisher", "fisher-sign"):
        found = direction_of(
            {site: torch.tensor([math.nan, 2.0, -math.inf])}, precondition, fisher={site: torch.ones(3)}, damping=0.1
        )  # type: ignore[arg-type]
        assert found[site][0] == found[site][2] == 0
        assert found[site][1] > 0


def test_a_gradient_without_a_number_is_said(
    answering: Callable[..., Any], small_tokenizer: Any, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = measure_effects

    def broken(*arguments: Any, **named: Any) -> Any:
        found = real(*arguments, **named)
        return {site: Effects(own.loss_change * math.nan, own.score * math.nan) for site, own in found.items()}

    monkeypatch.setattr("strop.searching.asking.measure_effects", broken)
    with pytest.raises(DecompositionError, match="gradient is not finite for any matrix"):
        sharpen(answering(), small_tokenizer, task, PLAN)


def test_a_start_that_holds_for_one_length_has_no_drift(
    answering: Callable[..., Any], small_tokenizer: Any, task: Task
) -> None:
    model = answering()
    site = WeightSite(1, MatrixType.UP)
    rows = model.get_submodule(Anatomy.of(model).module_path(site)).weight.shape[0]
    start = Recipe.of(
        model, [SingularValuePruning(site, (0,), bias="position")], tensors=[{"bias": torch.zeros(9, rows)}]
    )
    with pytest.raises(UsageError, match="holds for sequences of one length"):
        sharpen(model, small_tokenizer, task, SharpenPlan(), RunOptions(after=start))


def test_settings_of_fisher_steps_go_with_them() -> None:
    with pytest.raises(UsageError, match="damping goes with preconditions fisher-sign and fisher, not with 'sign'"):
        SharpenPlan(precondition="sign", damping=1.0)


def test_fisher_steps_go_far_where_the_base_resists_little() -> None:
    from strop.anatomy import MatrixType, WeightSite

    site = WeightSite(0, MatrixType.UP)
    gradient, fisher = {site: torch.tensor([1.0, 1.0, -2.0])}, {site: torch.tensor([0.1, 0.4, 0.1])}
    found = direction_of(gradient, "fisher", fisher=fisher, damping=0.0)[site]
    torch.testing.assert_close(found, torch.tensor([10.0, 2.5, -20.0]) / (32.5 / 3))
    assert direction_of(gradient, "sign", damping=0.1)[site].tolist() == [1, 1, -1]


@pytest.mark.parametrize(
    ("setting", "value", "said"),
    [
        ("step", 0.0, "above 0 and at most 0.5"),
        ("steps", 0, "steps is 1 or more"),
        ("drift", -1.0, "drift"),
        ("damping", 0.0, "damping"),
        ("examples", 0, "examples is 1 or more"),
        ("precondition", "adam", "sign, fisher, none"),
        ("objective", "best", "average, macro"),
        ("layers", (), "layers is empty"),
        ("seed", -1, "seed is 0 or more"),
    ],
)
def test_settings_that_mean_nothing_are_refused(setting: str, value: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        SharpenPlan(**{setting: value})


def test_squares_are_the_mean_of_what_each_examples_tokens_add_up_to(
    tiny: Callable[..., Any], small_tokenizer: Any, task: Task
) -> None:
    model = tiny("llama")
    examples = task.examples("train")[:4]
    sites = Anatomy.of(model).sites(layers=[1])

    def asked(some: Any, reduction: Any) -> Any:
        scorer = Scorer(model, small_tokenizer, some, "exact")
        return measure_effects(scorer, sites, decompose=decompose, plan=EffectPlan(reduction=reduction))

    found = asked(examples, "squares")
    alone = [asked([example], "sum") for example in examples]
    for site in sites:
        expected = torch.stack([own[site].loss_change ** 2 for own in alone]).mean(0)
        torch.testing.assert_close(found[site].score, expected, atol=1e-9, rtol=1e-3)
