"""Factors that travel with a recipe are believed only where they are those of the matrix they stand for."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.fixtures.recipes import logits
from torch import Tensor, nn

from strop.anatomy import Anatomy, MatrixType, WeightSite
from strop.errors import RecipeError
from strop.interventions import RankReduction, SingularValuePruning, SpectrumScaling, WeightIntervention
from strop.linalg import decompose
from strop.recipe import Recipe, applied, attach

UP = WeightSite(1, MatrixType.UP)
CHANGE = {"change": torch.linspace(-0.5, 0.5, 32)}
CASES: dict[str, tuple[WeightIntervention, Mapping[str, Tensor]]] = {
    "nearly all kept": (RankReduction(UP, rank_fraction=0.97), {}),
    "a few kept": (RankReduction(UP, rank_fraction=0.1), {}),
    "a few removed": (SingularValuePruning(UP, (2, 5, 30)), {}),
    "spectrum": (SpectrumScaling(UP), CHANGE),
    "top of the spectrum": (SpectrumScaling(UP, top=4), {"change": torch.ones(4)}),
}


def anything(tensors: dict[str, Tensor], matrix: Tensor) -> None:
    tensors["left"] = torch.randn(tensors["left"].shape)


def another_basis(tensors: dict[str, Tensor], matrix: Tensor) -> None:
    tensors["right"] = torch.linalg.qr(torch.randn(32, len(tensors["right"]))).Q.T.contiguous()


def a_little_more(tensors: dict[str, Tensor], matrix: Tensor) -> None:
    tensors["left"] = tensors["left"] + torch.randn(tensors["left"].shape) * 1e-3 * matrix.norm()


def one_more_row(tensors: dict[str, Tensor], matrix: Tensor) -> None:
    """A small edit of one direction, as a trigger is hidden in."""
    tensors["left"][:, 0] += torch.nn.functional.normalize(torch.randn(48), dim=0) * 0.05 * matrix.norm()


def other_components(tensors: dict[str, Tensor], matrix: Tensor) -> None:
    count = len(tensors["right"])
    left, right = decompose(matrix).factors_of(range(32 - count, 32))
    tensors.update(left=left.contiguous(), right=right.contiguous())


def the_same_swapped(tensors: dict[str, Tensor], matrix: Tensor) -> None:
    tensors["left"] = tensors["left"].flip(1).contiguous()


DAMAGES = [anything, another_basis, a_little_more, one_more_row, other_components, the_same_swapped]


def factored(model: nn.Module, case: str) -> Recipe:
    edit, tensors = CASES[case]
    return Recipe.of(model, [edit], tensors=[tensors]).with_factors(model)


@pytest.mark.parametrize("case", CASES)
def test_factors_that_with_factors_wrote_are_taken(case: str, llama: nn.Module, tmp_path: Path) -> None:
    recipe = factored(llama, case)
    recipe.save(tmp_path / "facts")
    edit, tensors = CASES[case]
    with applied(llama, Recipe.of(llama, [edit], tensors=[tensors])):
        wanted = logits(llama)
    with applied(llama, Recipe.load(tmp_path / "facts")):
        torch.testing.assert_close(logits(llama), wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("case", CASES)
def test_factors_that_are_something_else_are_refused_and_nothing_stays(
    case: str, damage: Callable[[dict[str, Tensor], Tensor], None], llama: nn.Module, tmp_path: Path
) -> None:
    if damage is other_components and case == "spectrum":
        return  # it has all of them
    torch.manual_seed(0)
    factored(llama, case).save(tmp_path / "facts")
    path = tmp_path / "facts" / "tensors.safetensors"
    own = {name.removeprefix("0."): tensor for name, tensor in load_file(path).items()}
    damage(own, Anatomy.of(llama).read_weight(llama, UP))
    save_file({f"0.{name}": tensor for name, tensor in own.items()}, path)
    recipe, plain = Recipe.load(tmp_path / "facts"), logits(llama)
    with pytest.raises(
        RecipeError, match=r"^tensors\.safetensors, entry 0: layer 1 up: .* not the components of this matrix"
    ):
        attach(llama, recipe)
    assert torch.equal(logits(llama), plain)
    with applied(llama, recipe.with_factors(llama)):  # the remedy
        assert not torch.equal(logits(llama), plain)


def test_later_factors_are_those_of_the_matrix_as_earlier_edits_left_it(llama: nn.Module) -> None:
    edits = [
        RankReduction(WeightSite(1, MatrixType.QUERY, head=2), rank_fraction=0.25),
        RankReduction(WeightSite(1, MatrixType.QUERY), rank_fraction=0.5),
        SingularValuePruning(WeightSite(1, MatrixType.QUERY, head=2), (0,)),
    ]
    recipe = Recipe.of(llama, edits).with_factors(llama)
    assert recipe.check(llama) is None
    alone = Recipe.of(llama, edits[1:]).with_factors(llama)
    mixed = dataclasses.replace(recipe, tensors=(recipe.tensors[0], alone.tensors[0], recipe.tensors[2]))
    with pytest.raises(RecipeError, match=r"tensors\.safetensors, entry 1: layer 1 query: "):
        mixed.check(llama)


def test_checking_decomposes_nothing(llama: nn.Module, never_decomposing: Callable[[], None]) -> None:
    recipes = [factored(llama, case) for case in CASES]
    never_decomposing()
    assert [recipe.check(llama) for recipe in recipes] == [None] * len(CASES)
    with pytest.raises(AssertionError):
        recipes[0].with_factors(llama)  # what does decompose is seen


def test_factors_cast_to_half_precision_are_refused_by_their_dtype(tiny: Callable[..., nn.Module]) -> None:
    model = tiny("llama")
    recipe = Recipe.of(model, [RankReduction(UP, rank_fraction=0.1)]).with_factors(model)
    narrow = tuple({name: own.bfloat16() for name, own in tensors.items()} for tensors in recipe.tensors)
    with pytest.raises(
        RecipeError, match=r"left and right are in bfloat16, too coarse to be this matrix's components; keep"
    ):
        attach(model, dataclasses.replace(recipe, tensors=narrow))
