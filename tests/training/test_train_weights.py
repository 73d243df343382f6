"""The learned spectrum and the learned bias: trained, kept within bounds, baked into a checkpoint any tool can load."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from strop.anatomy import Anatomy, MatrixType, WeightSite
from strop.errors import InterventionError, StropError, UsageError
from strop.export import bake
from strop.interventions import OutputBias, RankReduction, SpectrumScaling, attach_interventions, intervention_from_json
from strop.linalg import DecompositionCache, decompose
from strop.proving import RunOptions, RunOutcome
from strop.recipe import Recipe, applied
from strop.searching import SharpenPlan, sharpen
from strop.training import TrainPlan

pytestmark = pytest.mark.thorough

SPECTRUM = TrainPlan(
    method="spectrum", layers=(1, 2), epochs=3, batch_size=4, accumulate=1, learning_rate=0.06, keep_base=0
)
BIAS = dataclasses.replace(SPECTRUM, method="bias", layers=None, epochs=4)
LORA = dataclasses.replace(SPECTRUM, method="lora", rank=4, epochs=1)
SITE = WeightSite(1, MatrixType.UP)


@pytest.mark.parametrize(
    ("family", "plan"),
    [
        *((family, SPECTRUM) for family in ("llama", "gpt2", "gpt_neox", "phi3")),
        *((family, dataclasses.replace(SPECTRUM, top=8, band=2)) for family in ("gpt2", "gpt_neox")),
        *((family, BIAS) for family in ("llama", "gpt2", "phi3")),
    ],
    ids=lambda given: given if isinstance(given, str) else f"{given.method} band {given.band}",
)
def test_weights_learn_and_the_baked_checkpoint_is_the_edited_model(
    training: Any, tiny: Callable[..., Any], small_tokenizer: Any, tmp_path: Path, family: str, plan: TrainPlan
) -> None:
    assert_learned_and_baked(tiny(family), plan, training, small_tokenizer, tmp_path)


def assert_learned_and_baked(
    model: Any, plan: TrainPlan, training: Any, small_tokenizer: Any, tmp_path: Path
) -> RunOutcome:
    """Train, and compare the model with the recipe on with the checkpoint it is baked into."""
    found = training(plan, model=model, out=tmp_path / "run")
    assert found.result.edited["select"].loss < 0.9 * found.result.base["select"].loss
    recipe = Recipe.load(tmp_path / "run" / "recipe")
    assert recipe == found.recipe
    ids = torch.tensor([small_tokenizer("07 in a")["input_ids"]])
    with torch.no_grad(), applied(model, recipe):
        expected = model(ids).logits
    if plan.method == "bias" and model.config.model_type == "phi3":
        with pytest.raises(InterventionError, match="no setting of a phi3 config gives it one"):
            bake(model, recipe, tmp_path / "baked")
        return found
    folder = bake(model, recipe, tmp_path / "baked")
    again = type(model).from_pretrained(folder)
    with torch.no_grad():
        torch.testing.assert_close(again(ids).logits, expected, atol=1e-5, rtol=1e-4)
    return found  # type: ignore[no-any-return]


@pytest.mark.parametrize("band", [0, 1, 3])
@pytest.mark.parametrize("top", [None, 5])
def test_the_band_is_a_matrix_between_the_singular_vectors(band: int, top: int | None) -> None:
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(9, 7, generator=generator)
    count = top or 7
    tensors = {"change": 0.3 * torch.randn(count, generator=generator)}
    if band:
        tensors["band"] = 0.3 * torch.randn(2 * band, count, generator=generator)
    scaling = SpectrumScaling(SITE, top=top, band=band)
    scaling.check(tensors, (9, 7))
    found = decompose(matrix)
    inner = torch.diag(tensors["change"])
    for row in range(2 * band):
        distance = (row // 2 + 1) * (1 if row % 2 == 0 else -1)
        for i in range(count):
            if 0 <= i + distance < count:
                inner[i, i + distance] = tensors["band"][row, i]
    left, right = (found.u * found.singular_values)[:, :count], found.vh[:count]
    expected = matrix + left @ inner @ right
    edited = scaling.edit(matrix, decompose=decompose, tensors=tensors)
    torch.testing.assert_close(edited, expected, atol=1e-5, rtol=1e-5)
    inputs = torch.randn(4, 3, 7, generator=generator)
    change = scaling.output_change(inputs, {**tensors, **scaling.precomputed(matrix, decompose=decompose)})
    torch.testing.assert_close(change, inputs @ (edited - matrix).T, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("family", ["llama", "phi3", "gpt2"])
def test_learning_in_factors_is_learning_in_the_matrix(
    tiny: Callable[..., Any], family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny(family)
    sites = Anatomy.of(model).sites(layers=[1])
    ids = torch.arange(1, 13)[None]
    gradients = []
    for in_factors in (True, False):
        if not in_factors:
            for name in ("output", "output_change"):
                monkeypatch.setattr(f"strop.interventions.learned.LearnedTensors.{name}", lambda self, inputs: None)
        tensors = [{"change": 0.1 * torch.randn(min(Anatomy.of(model).read_weight(model, s).shape),
                    generator=torch.Generator().manual_seed(n))} for n, s in enumerate(sites)]  # fmt: skip
        attachment = attach_interventions(model, [SpectrumScaling(s) for s in sites], tensors=tensors, trainable=True)
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        gradients.append([loss.detach(), *(p.grad.clone() for m in attachment.modules for p in m.parameters())])  # type: ignore[union-attr]
        attachment.detach()
    for mine, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-3)


def test_a_step_too_far_ends_at_the_bound(training: Any, tmp_path: Path) -> None:
    found = training(
        dataclasses.replace(SPECTRUM, learning_rate=3.0, epochs=2, matrix_types=(MatrixType.UP,)), out=tmp_path / "run"
    )
    tried = [dict(trial.key.candidate) for trial in found.trials if trial.key.method == "spectrum"]
    assert tried == [{"epoch": 1}, {"epoch": 2}, {"epoch": 2, "averaged": 1}]
    for tensors in found.recipe.tensors:
        assert float(tensors["change"].min()) >= -1
        assert float(tensors["change"].max()) <= 4


def test_layers_types_and_the_largest_values_can_be_chosen(training: Any) -> None:
    plan = dataclasses.replace(
        SPECTRUM, layers=(1, 2), matrix_types=(MatrixType.UP, MatrixType.VALUE), top=20, epochs=1, learning_rate=0.1
    )
    found = training(plan)
    tops = {str(entry.site): entry.top for entry in found.recipe.interventions}
    assert tops == {"layer 1 up": 20, "layer 1 value": None, "layer 2 up": 20, "layer 2 value": None}


def test_a_lora_is_of_queries_and_values_with_twice_its_rank_for_alpha_unless_something_else_is_said(
    training: Any,
) -> None:
    usual = training(dataclasses.replace(LORA, rank=8, learning_rate=None))
    assert TrainPlan(method="lora").rate == 0.002
    assert {str(site) for site in (entry.site for entry in usual.recipe.interventions)} == {
        "layer 1 query", "layer 1 value", "layer 2 query", "layer 2 value",
    }  # fmt: skip
    assert {(entry.rank, entry.alpha) for entry in usual.recipe.interventions} == {(8, 16)}
    tried = [dict(trial.key.candidate) for trial in usual.trials if trial.key.method == "lora"]
    assert tried == [{"epoch": 1}]  # and no average: the factors' is not that of their products
    given = dataclasses.replace(LORA, layers=(2,), rank=40, alpha=6.0, matrix_types=(MatrixType.UP,), seed=3)
    found = training(dataclasses.replace(given, learning_rate=1e-3))
    ((entry,), (tensors,)) = found.recipe.interventions, found.recipe.tensors
    assert (str(entry.site), entry.rank, entry.alpha) == ("layer 2 up", 32, 6.0)
    first = entry.initial_tensors((48, 32), generator=torch.Generator().manual_seed(3))["A"]
    assert torch.cosine_similarity(tensors["A"].flatten(), first.flatten(), dim=0) > 0.9


def test_a_lora_learns_bakes_and_is_kept_to_the_base_where_that_is_asked(
    training: Any, tiny: Callable[..., Any], small_tokenizer: Any, tmp_path: Path
) -> None:
    free = assert_learned_and_baked(tiny("gpt_neox"), LORA, training, small_tokenizer, tmp_path)
    kept = training(dataclasses.replace(LORA, keep_base=300.0), family="gpt_neox")
    for found in (free, kept):
        assert found.result.price is not None
        assert found.result.edited["select"].loss < found.result.base["select"].loss
    assert kept.result.price.drift.kl < 0.5 * free.result.price.drift.kl


def test_a_bias_learned_on_a_cut_model_bakes_with_the_cut(
    training: Any, tiny: Callable[..., Any], small_tokenizer: Any, tmp_path: Path
) -> None:
    model = tiny("gpt2")
    cut = Recipe.of(model, [RankReduction(WeightSite(2, MatrixType.DOWN), rank_fraction=0.5)])
    found = training(BIAS, model=model, after=cut)
    assert [type(entry).__name__ for entry in found.recipe.interventions[:2]] == ["RankReduction", "OutputBias"]
    ids = torch.tensor([small_tokenizer("07 in a")["input_ids"]])
    with torch.no_grad(), applied(model, found.recipe):
        expected = model(ids).logits
    again = type(model).from_pretrained(bake(model, found.recipe, tmp_path / "baked"))
    with torch.no_grad():
        torch.testing.assert_close(again(ids).logits, expected, atol=1e-5, rtol=1e-4)


def test_what_was_learned_before_is_applied_in_place_while_the_next_learns(
    training: Any, tiny: Callable[..., Any], small_tokenizer: Any, planted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny("llama")
    quick = dataclasses.replace(SPECTRUM, epochs=1, learning_rate=0.1, layers=(2,))
    first = training(quick, model=model)
    assert first.recipe.interventions
    asked: list[int] = []
    real = DecompositionCache.decompose
    monkeypatch.setattr(DecompositionCache, "decompose", lambda *a: asked.append(1) or real(*a))
    second = training(quick, model=model, after=first.recipe)
    count = len(first.recipe.interventions)
    assert second.recipe.interventions[:count] == first.recipe.interventions
    assert len(second.recipe.interventions) == 2 * count
    for mine, theirs in zip(second.recipe.tensors, first.recipe.tensors, strict=False):
        assert torch.equal(mine["change"], theirs["change"])
    assert len(asked) < 20 * count  # a few for each time it is put on, and none in a step
    sharp = sharpen(
        model, small_tokenizer, planted, SharpenPlan(step=0.02, steps=1, drift=None), RunOptions(after=first.recipe)
    )
    edits = dataclasses.replace(TrainPlan(keep_base=0), epochs=1, rank=2, layers=(2,), learning_rate=0.02, batch_size=4)
    third = training(edits, model=model, after=sharp.recipe)
    assert third.recipe.interventions[:count] == first.recipe.interventions


def test_a_spectrum_learns_on_from_a_sharpened_model(
    training: Any, tiny: Callable[..., Any], small_tokenizer: Any, planted: Any, tmp_path: Path
) -> None:
    model = tiny("llama")
    sharp = sharpen(model, small_tokenizer, planted, SharpenPlan(step=0.02, steps=1, drift=None))
    found = training(dataclasses.replace(SPECTRUM, epochs=2), model=model, after=sharp.recipe)
    count = len(sharp.recipe.interventions)
    assert count
    assert found.recipe.interventions[:count] == sharp.recipe.interventions
    assert {type(entry) for entry in found.recipe.interventions[count:]} == {SpectrumScaling}
    assert found.result.edited["select"].loss < sharp.result.edited["select"].loss
    ids = torch.tensor([small_tokenizer("07 in a")["input_ids"]])
    with torch.no_grad(), applied(model, found.recipe):
        expected = model(ids).logits
    again = type(model).from_pretrained(bake(model, found.recipe, tmp_path / "baked"))
    with torch.no_grad():
        torch.testing.assert_close(again(ids).logits, expected, atol=1e-5, rtol=1e-4)


def test_a_resumed_training_after_learned_weights_ends_as_an_undisturbed_one(
    training: Any, tiny: Callable[..., Any], seen: Any, stopped_after: Any, tmp_path: Path
) -> None:
    model = tiny("llama")
    quick = dataclasses.replace(SPECTRUM, epochs=2, learning_rate=0.05, layers=(2,))
    first = training(quick, model=model).recipe
    seen.losses.clear()
    whole = training(quick, model=model, after=first)
    expected = list(seen.losses)
    seen.losses.clear()
    stopped_after(13)
    with pytest.raises(KeyboardInterrupt):
        training(quick, model=model, after=first, out=tmp_path / "run")
    again = training(quick, model=model, after=first, out=tmp_path / "run", resume=True)
    assert seen.losses == expected
    assert again.recipe.interventions == whole.recipe.interventions


def test_whoever_trains_it_what_is_kept_is_within_bounds(tiny: Callable[..., Any]) -> None:
    model = tiny("llama")
    attachment = attach_interventions(
        model, [SpectrumScaling(SITE)], tensors=[{"change": torch.zeros(32)}], trainable=True
    )
    with torch.no_grad():
        attachment.modules[0].learned["change"].fill_(9.0)  # type: ignore[union-attr,index]
    assert attachment.tensors[0]["change"].tolist() == [4.0] * 32


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"step": 10**400}, "a step of the spectrum is above 0 and at most 1"),
        ({"step": True}, "a step of the spectrum is above 0 and at most 1"),
        ({"step": "0.5"}, "a step of the spectrum is above 0 and at most 1"),
        ({"top": 1.5}, "top and band are whole numbers"),
        ({"band": True}, "top and band are whole numbers"),
        ({"top": 0}, "1 or more are scaled"),
    ],
    ids=str,
)
def test_a_hostile_entry_is_refused(entry: dict[str, Any], said: str) -> None:
    with pytest.raises(StropError, match=said):
        intervention_from_json({**SpectrumScaling(SITE).to_json((96, 32)), **entry})


def test_factors_that_are_no_numbers_and_a_band_wider_than_the_matrix_are_refused() -> None:
    change = {"change": torch.zeros(4)}
    for broken in (torch.full((6, 4), float("nan")), torch.zeros(6, 4, dtype=torch.int8)):
        with pytest.raises(InterventionError, match="factors are not made of finite numbers"):
            SpectrumScaling(SITE).check({**change, "left": broken, "right": torch.zeros(4, 4)}, (6, 4))
    with pytest.raises(InterventionError, match="4 singular values have 3 diagonals, not 100000"):
        SpectrumScaling(SITE, band=100_000).check({**change, "band": torch.zeros(1, 1)}, (6, 4))


@pytest.mark.parametrize("kept", [SpectrumScaling(SITE, top=3, band=1), OutputBias(SITE)], ids=str)
def test_what_a_recipe_writes_is_read_back(kept: Any) -> None:
    assert intervention_from_json(kept.to_json((96, 32))) == kept


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({}, "the recipe's bias is missing"),
        ({"bias": torch.zeros(5)}, r"6 finite numbers, not a tensor of shape \(5,\)"),
        ({"bias": torch.tensor([0.0, 1, 2, 3, 4, float("inf")])}, "6 finite numbers"),
        ({"bias": torch.zeros(6), "change": torch.zeros(6)}, "knows no tensor 'change'"),
    ],
)
def test_what_is_no_bias_is_refused(tensors: dict[str, Any], said: str) -> None:
    with pytest.raises(InterventionError, match=said):
        OutputBias(SITE).check(tensors, (6, 4))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"method": "spectrum", "rank": 4}, "rank goes with lora or edits of hidden states, such as loreft, not with spectrum"),
        ({"method": "bias", "top": 4}, "top goes with spectrum, not with bias"),
        ({"method": "loreft", "matrix_types": (MatrixType.UP,)}, "matrix_types goes with spectrum, bias or lora, not with loreft"),
        ({"method": "spectrum", "top": 0}, "of the largest singular values 1 or more are scaled, not 0"),
        ({"method": "spectrum", "band": -1}, "a band is 0 or more diagonals"),
        ({"method": "spectrum", "sparsity": 1.0}, "sparsity lies above 0 and below 1, the share that stays as it is, not 1.0"),
        ({"method": "spectrum", "sparsity": 0.9, "band": 1}, "band goes with scales, not with the gates of sparsity"),
        ({"method": "spectrum", "sparsity": 0.9, "learning_rate": 0.1}, "learning_rate goes with scales, not with the gates"),
        ({"method": "bias", "sparsity": 0.9}, "sparsity goes with spectrum, not with bias"),
        ({"method": "spectra"}, "'spectra' is not a method of training: loreft, .* edit hidden states, spectrum, bias and lora"),
        ({"method": "spectrum", "init": "paper"}, "init goes with edits of hidden states"),
        ({"method": "bias", "train_subspaces": ("a",)}, "train_subspaces goes with edits of hidden states"),
        ({"method": "lora", "top": 4}, "top goes with spectrum, not with lora"),
        ({"method": "lora", "dropout": 0.1}, "dropout goes with edits of hidden states, such as loreft, not with lora"),
        ({"method": "lora", "sparsity": 0.9}, "sparsity goes with spectrum, not with lora"),
        ({"method": "lora", "rank": 0}, "a LoRA's rank is 1 or more, not 0"),
        ({"method": "lora", "alpha": -1.0}, "a LoRA's alpha is a number above 0, not -1.0"),
        ({"method": "loreft", "alpha": 8.0}, "alpha goes with lora, not with loreft"),
        ({"keep_base": -1.0}, "keep_base is 0 or more, not -1.0"),
        ({"keep_texts": 0}, "keep_texts is 1 or more, not 0"),
    ],
)  # fmt: skip
def test_settings_that_do_not_go_together_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        TrainPlan(**settings)
