"""The spectrum's intervention: singular values scaled, singular vectors kept."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from strop.anatomy import Anatomy, MatrixType, WeightSite
from strop.errors import InterventionError, RecipeError, UsageError
from strop.interventions import (
    SingularValuePruning,
    SpectrumScaling,
    applied_interventions,
    attach_interventions,
    intervention_from_json,
)
from strop.linalg import decompose
from strop.recipe import Recipe, applied

T = MatrixType
Tiny = Callable[..., nn.Module]
SITE = WeightSite(1, T.UP)


def changes(rank: int, seed: int = 0) -> Tensor:
    return 0.3 * torch.randn(rank, generator=torch.Generator().manual_seed(seed)).clamp(-2, 2)


@pytest.mark.parametrize("model_type", ["llama", "phi3", "gpt2", "gpt_neox"])
def test_singular_values_are_scaled_and_their_vectors_kept(model_type: str, tiny: Tiny) -> None:
    model = tiny(model_type)
    anatomy = Anatomy.of(model)
    for site in [*anatomy.sites(layers=[1]), WeightSite(1, T.VALUE, head=1), WeightSite(1, T.OUTPUT, head=0)]:
        before = anatomy.read_weight(model, site).clone()
        change = changes(min(before.shape))
        with applied_interventions(model, [SpectrumScaling(site)], tensors=[{"change": change}]):
            after = anatomy.read_weight(model, site).clone()
        found = decompose(before)
        expected = (found.u.double() * (found.singular_values.double() * (1 + change.double()))) @ found.vh.double()
        torch.testing.assert_close(after.double(), expected, atol=1e-5, rtol=1e-4)
        assert torch.equal(anatomy.read_weight(model, site), before)


def test_no_change_leaves_every_bit() -> None:
    matrix = torch.randn(6, 4)
    edited = SpectrumScaling(SITE).edit(matrix, decompose=decompose, tensors={"change": torch.zeros(4)})
    assert torch.equal(edited, matrix)


def test_a_change_of_minus_one_removes_the_component() -> None:
    matrix = torch.randn(6, 4)
    edited = SpectrumScaling(SITE).edit(
        matrix, decompose=decompose, tensors={"change": torch.tensor([0.0, -1.0, 0.0, -1.0])}
    )
    pruned = SingularValuePruning(SITE, (1, 3)).edit(matrix, decompose=decompose, tensors={})
    torch.testing.assert_close(edited, pruned, atol=1e-5, rtol=1e-4)


def test_levels_are_multiples_of_the_step() -> None:
    matrix, levels = torch.randn(6, 4), torch.tensor([1, -2, 0, 3], dtype=torch.int8)
    by_levels = SpectrumScaling(SITE, 0.01).edit(matrix, decompose=decompose, tensors={"levels": levels})
    by_change = SpectrumScaling(SITE).edit(matrix, decompose=decompose, tensors={"change": 0.01 * levels.float()})
    assert torch.equal(by_levels, by_change)


@pytest.mark.parametrize(
    ("step", "tensors", "said"),
    [
        (None, {}, "the recipe's change is missing"),
        (0.1, {"change": torch.zeros(4)}, "knows no tensor 'change'"),
        (None, {"change": torch.zeros(3)}, r"change of shape \(3,\) are not the changes of 4 singular values"),
        (None, {"change": torch.tensor([0.0, 0.0, -1.1, 0.0])}, "lie between -1 and 4"),
        (None, {"change": torch.tensor([0.0, 4.5, 0.0, 0.0])}, "lie between -1 and 4"),
        (None, {"change": torch.tensor([0.0, float("nan"), 0.0, 0.0])}, "lie between -1 and 4"),
        (0.1, {"levels": torch.tensor([-11, 0, 0, 0], dtype=torch.int8)}, "lie between -1 and 4"),
        (0.1, {"levels": torch.zeros(4)}, "levels are whole numbers of one byte"),
        (None, {"change": torch.zeros(4), "left": torch.zeros(6, 4)}, "factors of shapes"),
    ],
)
def test_what_is_no_change_of_the_spectrum_is_refused(
    step: float | None, tensors: dict[str, Tensor], said: str
) -> None:
    with pytest.raises(InterventionError, match=said):
        SpectrumScaling(SITE, step).check(tensors, (6, 4))


@pytest.mark.parametrize("step", [0.0, -0.1, 1.5, float("nan")])
def test_a_step_that_is_none_is_refused(step: float) -> None:
    with pytest.raises(UsageError, match="a step of the spectrum is above 0 and at most 1"):
        SpectrumScaling(SITE, step)


@pytest.mark.parametrize("step", [None, 0.004])
def test_what_a_recipe_writes_is_read_back(step: float | None) -> None:
    scaling = SpectrumScaling(SITE, step)
    entry = scaling.to_json((96, 32))
    assert intervention_from_json(entry) == scaling
    assert entry["full_rank"] == 32
    with pytest.raises(RecipeError, match="cannot be read"):
        intervention_from_json({**entry, "step": "wide"})


@pytest.mark.parametrize("with_factors", [False, True])
def test_a_recipe_on_disk_edits_as_the_one_in_memory(with_factors: bool, tiny: Tiny, tmp_path: Path) -> None:
    model: Any = tiny("llama")
    recipe = Recipe.of(
        model,
        [SpectrumScaling(SITE, 0.004), SpectrumScaling(WeightSite(0, T.QUERY))],
        tensors=[{"levels": torch.arange(-16, 16, dtype=torch.int8)}, {"change": changes(32)}],
    )
    with applied(model, recipe):
        expected = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    recipe = recipe.with_factors(model) if with_factors else recipe
    kept = Recipe.load(recipe.save(tmp_path / "recipe"))
    with applied(model, kept):
        for name, tensor in model.state_dict().items():
            torch.testing.assert_close(tensor, expected[name], atol=1e-6, rtol=1e-5)
    assert "singular values of 1 matrices in layer" in "\n".join(kept.summary) or "of 2 matrices" in "\n".join(
        kept.summary
    )


def test_learning_it_moves_the_changes_alone(tiny: Tiny) -> None:
    model: Any = tiny("llama")
    ids = torch.arange(1, 9)[None]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    attachment = attach_interventions(
        model, [SpectrumScaling(SITE)], tensors=[{"change": torch.zeros(32)}], trainable=True
    )
    learned = [p for p in model.parameters() if p.requires_grad]
    assert [p.numel() for p in learned] == [32]
    optimizer = torch.optim.SGD(learned, lr=0.5)
    losses = []
    for _ in range(3):
        loss = model(input_ids=ids, labels=ids).loss
        losses.append(float(loss.detach()))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert losses[2] < losses[1] < losses[0]
    found = attachment.tensors[0]["change"]
    assert bool(found.any())
    attachment.detach()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    with applied_interventions(model, [SpectrumScaling(SITE)], tensors=[{"change": found}]):
        in_place = model(input_ids=ids, labels=ids).loss
    assert float(in_place.detach()) < losses[2]
