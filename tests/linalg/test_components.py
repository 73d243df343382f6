"""Components chosen and removed one by one: they and the others make up the matrix."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.fixtures.matrices import (
    gaussian,
    law,
    seeds,
)
from torch import Tensor

from strop.errors import UsageError
from strop.linalg import decompose, fingerprint, without_components


@st.composite
def matrices_with_a_choice(draw: st.DrawFn) -> tuple[Tensor, list[int]]:
    """A float64 matrix and any set of its components."""
    matrix = gaussian(draw(st.integers(1, 12)), draw(st.integers(1, 12)), draw(seeds), torch.float64)
    return matrix, sorted(draw(st.sets(st.integers(0, min(matrix.shape) - 1))))


@law
@given(matrices_with_a_choice())
def test_chosen_components_and_the_others_add_up_to_the_matrix(case: tuple[Tensor, list[int]]) -> None:
    matrix, chosen = case
    found = decompose(matrix)
    others = [index for index in range(min(matrix.shape)) if index not in chosen]
    (left, right), (other_left, other_right) = found.factors_of(chosen), found.factors_of(others)
    assert left.shape == (matrix.shape[0], len(chosen))
    assert right.shape == (len(chosen), matrix.shape[1])
    torch.testing.assert_close(left @ right + other_left @ other_right, matrix, atol=1e-12, rtol=0)
    torch.testing.assert_close(without_components(matrix, found, others), left @ right, atol=1e-12, rtol=0)


@law
@given(matrices_with_a_choice())
def test_subtracting_components_and_adding_up_the_others_give_the_same(case: tuple[Tensor, list[int]]) -> None:
    matrix, removed = case
    found = decompose(matrix)
    gone = [float(found.singular_values[i]) * torch.outer(found.u[:, i], found.vh[i]) for i in removed]
    subtracted = matrix - sum(gone, torch.zeros_like(matrix))
    torch.testing.assert_close(without_components(matrix, found, removed), subtracted, atol=1e-12, rtol=0)


@law
@given(matrices_with_a_choice())
def test_removed_components_are_gone_from_the_spectrum_and_the_others_stay(case: tuple[Tensor, list[int]]) -> None:
    matrix, removed = case
    found = decompose(matrix)
    kept = [float(value) for index, value in enumerate(found.singular_values) if index not in removed]
    left = torch.linalg.svdvals(without_components(matrix, found, removed))
    expected = torch.tensor(kept + [0.0] * len(removed), dtype=torch.float64)
    torch.testing.assert_close(left, expected, atol=1e-12, rtol=0)


@law
@given(st.integers(1, 12), st.integers(1, 12), seeds, st.data())
def test_removing_the_smallest_components_is_the_truncation(rows: int, columns: int, seed: int, data) -> None:
    matrix = gaussian(rows, columns, seed, torch.float64)
    found = decompose(matrix)
    rank = data.draw(st.integers(0, min(rows, columns)))
    without = without_components(matrix, found, range(rank, min(rows, columns)))
    torch.testing.assert_close(without, found.recompose(rank), atol=1e-12, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_removing_nothing_returns_the_matrix_bit_for_bit(dtype: torch.dtype) -> None:
    matrix = gaussian(9, 5, seed=0).to(dtype)
    matrix[0, 0], matrix[1, 1] = -0.0, 0.0
    without = without_components(matrix, decompose(matrix), [])
    assert without.dtype == dtype
    assert fingerprint(without) == fingerprint(matrix)


@pytest.mark.parametrize("removed", [[0], [0, 1, 2]])
def test_half_precision_comes_back_in_half_precision_rounded_once(removed: list[int]) -> None:
    matrix = gaussian(6, 4, seed=0).half()
    without = without_components(matrix, decompose(matrix), removed)
    exact = without_components(matrix.double(), decompose(matrix.double()), removed)
    assert without.dtype == torch.float16
    torch.testing.assert_close(without.double(), exact, atol=2e-3, rtol=0)


@pytest.mark.parametrize("indices", [[4], [-1], [0, 4], [0, 1, 2, 4], [0, 1, -1]])  # few and many: both ways to sum
def test_a_component_the_matrix_has_not_is_refused_with_those_it_has(indices: list[int]) -> None:
    matrix = gaussian(6, 4, seed=0)
    found = decompose(matrix)
    outside = next(index for index in indices if not 0 <= index < 4)
    said = rf"A matrix of shape \(6, 4\) has components 0 to 3, not {outside}\."
    with pytest.raises(UsageError, match=said):
        found.factors_of(indices)
    with pytest.raises(UsageError, match=said):
        without_components(matrix, found, indices)
