"""The Fisher information of the base's own text, and the prices made of it."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from strop.anatomy import MatrixType, WeightSite
from strop.errors import DecompositionError, UsageError
from strop.interventions import RankReduction, SingularValuePruning, SpectrumScaling, attach_interventions
from strop.linalg import DecompositionCache, decompose
from strop.proving import Assignment, RunOptions
from strop.recipe import Recipe
from strop.scoring import Texts
from strop.searching import PrunePlan, SearchPlan, SharpenPlan, measure_effects, prune, search, sharpen
from strop.searching.effects import Effects
from strop.searching.fisher import OwnTexts, fisher_information, priced
from strop.searching.guided_examples import GuidedExamples
from strop.tasks import Task


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Keep what is computed for a test alone."""
    monkeypatch.setattr("strop.searching.fisher.cache_folder", lambda: tmp_path / "kept")
    for place in ("laser.chooser", "eigenpruning.pruner"):
        monkeypatch.setattr(f"strop.searching.{place}.FISHER_TEXTS", 4)
    return tmp_path / "kept"


def assignment(model: Any, tokenizer: Any, task: Task, **options: Any) -> Assignment:
    return Assignment.of(model, tokenizer, task, RunOptions(decompositions=DecompositionCache(None), **options))


def fisher_of(given: Assignment, sites: Sequence[WeightSite]) -> dict[WeightSite, torch.Tensor]:
    held = {site: decompose(given.anatomy.read_weight(given.model, site)) for site in sites}
    return fisher_information(given, OwnTexts.of(given, count=4), sites, decompositions=held.__getitem__)


@pytest.mark.parametrize("family", ["llama", "phi3", "gpt2", "gpt_neox"])
def test_it_is_the_mean_square_of_each_texts_gradient(
    tiny: Callable[..., Any], small_tokenizer: Any, task: Task, monkeypatch: pytest.MonkeyPatch, family: str
) -> None:
    model = tiny(family)
    given = assignment(model, small_tokenizer, task)
    sites = given.anatomy.sites()
    found = fisher_of(given, sites)
    learning = attach_interventions(
        model,
        [SpectrumScaling(site) for site in sites],
        tensors=[{"change": torch.zeros(len(found[site]))} for site in sites],
        anatomy=given.anatomy,
        trainable=True,
    )
    parameters = [module.learned["change"] for module in learning.modules]
    total = [torch.zeros_like(parameter) for parameter in parameters]
    rows = [row for part in OwnTexts.of(given, count=4).texts for row in part.ids]
    for row in rows:
        prompt = len(row) // 2
        logits = model(input_ids=row[None]).logits[0, prompt - 1 : -1]
        loss = torch.nn.functional.cross_entropy(logits, row[prompt:], reduction="sum")
        for own, gradient in zip(total, torch.autograd.grad(loss, parameters), strict=True):
            own += gradient**2 / (len(row) - prompt) / len(rows)
    learning.detach()
    assert len(rows) == 4
    for site, expected in zip(sites, total, strict=True):
        torch.testing.assert_close(found[site].float(), expected, atol=1e-6, rtol=5e-3)
    monkeypatch.setattr("strop.searching.fisher.measure_effects", lambda *_, **__: pytest.fail("computed anew"))
    again = fisher_of(given, sites)
    assert all(torch.equal(again[site], found[site]) for site in sites)


def test_that_of_a_model_with_a_recipe_on_is_its_own_and_never_kept(
    tiny: Callable[..., Any], small_tokenizer: Any, task: Task, own_cache: Path
) -> None:
    model = tiny("llama")
    cut = Recipe.of(model, [RankReduction(WeightSite(1, MatrixType.UP), rank_fraction=0.2)])
    given = assignment(model, small_tokenizer, task, after=cut)
    own, sites = OwnTexts.of(given, count=4), given.anatomy.sites(layers=[2])
    with given.start.applied(model, anatomy=given.anatomy, decompose=given.decompose):
        held = {site: decompose(given.anatomy.read_weight(model, site)) for site in sites}
        edited = fisher_information(given, own, sites, decompositions=held.__getitem__)
    assert not own_cache.exists()
    base = fisher_of(assignment(model, small_tokenizer, task), sites)
    assert not any(torch.allclose(edited[site], base[site], rtol=1e-3) for site in sites)


def test_texts_of_several_lengths_count_by_their_tokens(
    tiny: Callable[..., Any], small_tokenizer: Any, task: Task
) -> None:
    given = assignment(tiny("llama"), small_tokenizer, task)
    sites = given.anatomy.sites(layers=[1])
    held = {site: decompose(given.anatomy.read_weight(given.model, site)) for site in sites}
    short, long = Texts(torch.randint(1, 60, (2, 10)), 4), Texts(torch.randint(1, 60, (3, 16)), 8)
    found, first, second = (
        fisher_information(given, OwnTexts(texts, name), sites, decompositions=held.__getitem__)
        for name, texts in (("both", (short, long)), ("short", (short,)), ("long", (long,)))
    )
    for site in sites:
        torch.testing.assert_close(found[site], 0.4 * first[site] + 0.6 * second[site], rtol=1e-3, atol=1e-9)


def test_what_is_not_finite_is_said_and_never_kept(
    tiny: Callable[..., Any], small_tokenizer: Any, task: Task, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = assignment(tiny("llama"), small_tokenizer, task)
    sites = given.anatomy.sites(layers=[1], matrix_types=[MatrixType.UP])
    nothing = {site: Effects(torch.full((32,), math.nan), torch.full((32,), math.nan)) for site in sites}
    monkeypatch.setattr("strop.searching.fisher.measure_effects", lambda *_, **__: nothing)
    with pytest.raises(DecompositionError, match="gradient is not finite for any matrix"):
        fisher_of(given, sites)
    assert not own_cache.exists()


def test_a_damaged_file_is_computed_anew(
    tiny: Callable[..., Any], small_tokenizer: Any, task: Task, own_cache: Path
) -> None:
    given = assignment(tiny("llama"), small_tokenizer, task)
    sites = given.anatomy.sites(layers=[1])
    found = fisher_of(given, sites)
    (kept,) = (own_cache / "fisher").iterdir()
    kept.write_bytes(b"no tensors")
    again = fisher_of(given, sites)
    assert all(torch.equal(again[site], found[site]) for site in sites)


def test_a_price_is_half_the_information_by_its_weight() -> None:
    site = WeightSite(0, MatrixType.UP)
    effects = {site: Effects(torch.tensor([-1.0, -0.5, 0.2]), torch.tensor([9.0, 9.0, 9.0]))}
    found = priced(effects, {site: torch.tensor([4.0, 0.1, 0.0])}, 10.0)
    torch.testing.assert_close(found[site].loss_change, torch.tensor([19.0, 0.0, 0.2]))
    assert torch.equal(found[site].score, found[site].loss_change)


def test_a_pruning_removes_what_gains_most_beyond_its_price(
    answering: Callable[..., Any], small_tokenizer: Any, task: Task
) -> None:
    plan = PrunePlan(price_weight=5.0, fractions=(0.02,), iterate=1, whole_matrices=True, effect_examples=10**6)
    found = prune(answering(), small_tokenizer, task, plan)
    model = answering()
    given = assignment(model, small_tokenizer, task)
    sites = given.anatomy.sites()
    held = {site: decompose(given.anatomy.read_weight(model, site)) for site in sites}
    guide = GuidedExamples.of(given, guide_limit=10**6, select_limit=None, seed=0).guide
    effects = measure_effects(guide, sites, decompose=decompose, decompositions=held.__getitem__)
    fisher = fisher_of(given, sites)
    ranked = sorted(
        (float(effects[site].loss_change[i] + 2.5 * fisher[site][i]), str(site), i)
        for site in sites
        for i in range(len(fisher[site]))
    )
    tried = [trial for trial in found.trials if trial.key.candidate]
    assert tried
    removed = {
        (str(entry.site), index)
        for entry in found.recipe.interventions
        if isinstance(entry, SingularValuePruning)
        for index in entry.removed
    }
    expected = {(site, index) for _, site, index in ranked[: len(removed)]}
    assert removed
    assert removed == expected


@pytest.mark.thorough
def test_what_costs_too_much_is_neither_pruned_nor_cut(
    answering: Callable[..., Any], small_tokenizer: Any, task: Task
) -> None:
    dear = 1e12
    pruned = prune(answering(), small_tokenizer, task, PrunePlan(price_weight=dear))
    assert pruned.recipe.interventions == ()
    cut = search(answering(), small_tokenizer, task, SearchPlan(price_weight=dear, top_matrices=2, compose="greedy"))
    free = search(answering(), small_tokenizer, task, SearchPlan(top_matrices=2, compose="greedy"))
    tried = [{str(dict(t.key.candidate)) for t in found.trials if t.key.candidate} for found in (cut, free)]
    assert tried[0] != tried[1]


@pytest.mark.parametrize("plan", [PrunePlan, SearchPlan])
@pytest.mark.parametrize("weight", [-1.0, math.inf, math.nan])
def test_a_weight_below_nothing_is_refused(plan: Any, weight: float) -> None:
    with pytest.raises(UsageError, match="price_weight is 0 or more"):
        plan(price_weight=weight)


def test_what_ranks_nothing_has_no_price() -> None:
    with pytest.raises(UsageError, match="price_weight goes with strategy 'gradient'"):
        SearchPlan(strategy="exhaustive", price_weight=1.0)
    with pytest.raises(UsageError, match="reduction is one of consistency, sum, max, mean-abs, not .squares."):
        PrunePlan(reduction="squares")


def test_a_plan_without_a_price_is_written_as_it_always_was() -> None:
    assert "price_weight" not in PrunePlan().to_json() | SearchPlan().to_json()
    assert PrunePlan(price_weight=3.0).to_json()["price_weight"] == 3.0


@pytest.mark.parametrize(
    ("method", "without", "with_it"),
    [
        (prune, PrunePlan(reduction="sum", iterate=1), PrunePlan(reduction="sum", iterate=1, price_weight=1e-12)),
        (
            sharpen,
            SharpenPlan(precondition="none", drift=None, steps=1),
            SharpenPlan(precondition="fisher", drift=None, steps=1, damping=1e9, fisher_texts=4),
        ),
    ],
    ids=["prune", "sharpen"],
)
def test_the_tokens_of_the_texts_that_are_asked_are_counted(
    answering: Callable[..., Any], small_tokenizer: Any, task: Task, method: Any, without: Any, with_it: Any
) -> None:
    bare, more = (method(answering(), small_tokenizer, task, plan) for plan in (without, with_it))
    own = OwnTexts.of(assignment(answering(), small_tokenizer, task), count=4)
    assert own.tokens == sum(part.ids.shape[0] * part.ids.shape[1] for part in own.texts) > 0
    assert len(more.trials) == len(bare.trials)
    assert more.result.cost.tokens - bare.result.cost.tokens == own.tokens
