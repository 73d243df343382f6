"""The decompositions a pruning works in: those of the beginning, and the same however little memory they may take."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from tests.fixtures.mixtures import FAMILIES, make_described
from torch import Tensor

from strop.anatomy import Anatomy, MatrixType, WeightSite
from strop.interventions import RankReduction, applied_interventions
from strop.linalg import SingularValueDecomposition, decompose, decompose_together
from strop.searching.decompositions import HeldDecompositions

UP, HEAD = WeightSite(1, MatrixType.UP), WeightSite(0, MatrixType.KEY, head=1)


class Counting:
    """A decomposer that counts what it is asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, ...]] = []

    def __call__(self, matrix: Tensor) -> SingularValueDecomposition:
        self.asked.append(tuple(matrix.shape))
        return decompose(matrix)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox", "phi3"])
def test_decompositions_stay_those_of_the_beginning_whatever_is_edited_since(
    tiny: Callable[..., Any], family: str
) -> None:
    model = tiny(family)
    anatomy = Anatomy.of(model)
    before = {site: decompose(anatomy.read_weight(model, site)).recompose() for site in (UP, HEAD)}
    held = HeldDecompositions(model, anatomy, [UP, HEAD], decompose=decompose, budget_bytes=0)
    whole = WeightSite(0, MatrixType.KEY)
    with applied_interventions(model, [RankReduction(UP, 0.1), RankReduction(whole, 0.1)]):
        for site, matrix in before.items():
            assert not torch.allclose(anatomy.read_weight(model, site), matrix, atol=1e-3)
            assert torch.equal(held(site).recompose(), matrix)
    for site, matrix in before.items():
        assert torch.equal(held(site).recompose(), matrix)


def test_decompositions_made_on_an_edited_model_are_those_of_the_edited_matrices(tiny: Callable[..., Any]) -> None:
    model = tiny("llama")
    anatomy = Anatomy.of(model)
    with applied_interventions(model, [RankReduction(UP, 0.25)]):
        held = HeldDecompositions(model, anatomy, [UP], decompose=decompose)
        with applied_interventions(model, [RankReduction(UP, 0.0)]):
            assert int((held(UP).singular_values > 1e-5).sum()) == 8


@pytest.mark.parametrize(
    ("budget", "asked_for_up"),
    [(0, 3), (4 * (48 * 32 + 32 + 32 * 32), 1), (4 * (48 * 32 + 32 + 32 * 32) - 1, 3)],
)
def test_what_fits_into_the_budget_is_asked_for_once_and_what_does_not_each_time(
    tiny: Callable[..., Any], budget: int, asked_for_up: int
) -> None:
    model, counting = tiny("llama"), Counting()
    held = HeldDecompositions(model, Anatomy.of(model), [UP, HEAD], decompose=counting, budget_bytes=budget)
    found = [held(UP) for _ in range(3)]
    assert len(counting.asked) == asked_for_up
    for one in found:
        assert torch.equal(one.u, found[0].u)
        assert torch.equal(one.vh, found[0].vh)


def test_once_the_budget_is_spent_what_is_held_stays(tiny: Callable[..., Any]) -> None:
    model, counting = tiny("llama"), Counting()
    down = WeightSite(2, MatrixType.DOWN)
    budget = 4 * (48 * 32 + 32 + 32 * 32)
    held = HeldDecompositions(model, Anatomy.of(model), [UP, down], decompose=counting, budget_bytes=budget)
    for _ in range(3):
        held(UP)
        held(down)
    assert counting.asked == [(48, 32), *[(32, 48)] * 3]


class Together(Counting):
    """A decomposer that also counts how many it is asked for at once."""

    def __init__(self) -> None:
        super().__init__()
        self.at_once: list[int] = []

    def together(self, matrices: Sequence[Tensor]) -> list[SingularValueDecomposition]:
        self.at_once.append(len(matrices))
        return decompose_together(matrices)


@pytest.mark.parametrize("budget", [2**20, 0])
def test_experts_that_are_alike_are_decomposed_together_where_memory_can_hold_them(budget: int) -> None:
    model = make_described("mixtral")
    anatomy = Anatomy.of(model, family=FAMILIES["mixtral"])
    sites, asked = anatomy.sites(), Together()
    held = HeldDecompositions(model, anatomy, sites, decompose=asked, budget_bytes=budget)
    for site in sites:
        matrix = anatomy.read_weight(model, site)
        torch.testing.assert_close(held(site).recompose(), matrix, atol=1e-5, rtol=1e-5)
    alone, experts = 2 * 4, 2 * 3 * 3
    assert sorted(asked.at_once) == ([1] * alone + [3] * 6 if budget else [1] * (alone + experts))
    assert asked.asked == []
