"""Laws of the singular value decomposition, whichever solver answers."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.fixtures.matrices import (
    METHODS,
    all_factors,
    assert_is_decomposition_of,
    gaussian,
    law,
    rotation,
    seeds,
    sizes,
)

from strop.errors import DecompositionError, UsageError
from strop.linalg import SingularValueDecomposition, decompose


@pytest.mark.parametrize("method", METHODS)
@law
@given(sizes, sizes, seeds)
def test_decomposing_and_recomposing_gives_the_matrix_back(method: str, rows: int, columns: int, seed: int) -> None:
    matrix = gaussian(rows, columns, seed)
    assert_is_decomposition_of(matrix, all_factors(matrix, method))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", [(1, 7), (7, 1), (1, 1), (40, 6), (6, 40), (12, 12), (200, 30)])
def test_answers_every_shape(method: str, shape: tuple[int, int]) -> None:
    matrix = gaussian(*shape, seed=3)
    assert_is_decomposition_of(matrix, all_factors(matrix, method))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("rows", "columns"), [(30, 10), (10, 30), (20, 20)])
def test_a_rank_deficient_matrix_shows_its_rank(method: str, rows: int, columns: int) -> None:
    matrix = gaussian(rows, 4, seed=1) @ gaussian(4, columns, seed=2)
    found = all_factors(matrix, method)
    assert_is_decomposition_of(matrix, found)
    assert int((found.singular_values > 1e-4 * found.singular_values[0]).sum()) == 4


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", [(9, 4), (4, 9), (5, 5)])
def test_a_zero_matrix_has_zero_singular_values_and_finite_orthonormal_factors(
    method: str, shape: tuple[int, int]
) -> None:
    matrix = torch.zeros(shape)
    found = all_factors(matrix, method)
    assert_is_decomposition_of(matrix, found)
    assert not found.singular_values.any()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_decomposed_in_float32(method: str, dtype: torch.dtype) -> None:
    matrix = gaussian(24, 10, seed=5).to(dtype)
    found = all_factors(matrix, method)
    assert {found.u.dtype, found.singular_values.dtype, found.vh.dtype} == {torch.float32}
    assert_is_decomposition_of(matrix.float(), found)


@pytest.mark.parametrize("shape", [(60, 20), (20, 60), (30, 30)])
def test_float64_keeps_the_precision_of_float64(shape: tuple[int, int]) -> None:
    values = torch.logspace(0, -3, min(shape), dtype=torch.float64)
    matrix = (rotation(shape[0], 0)[:, : len(values)] * values) @ rotation(shape[1], 1)[:, : len(values)].T
    found = decompose(matrix)
    assert found.u.dtype == torch.float64
    assert_is_decomposition_of(matrix, found, tolerance=1e-13)
    torch.testing.assert_close(found.singular_values, values, rtol=1e-11, atol=0)


def test_the_matrix_is_left_as_it_was_and_no_graph_is_kept() -> None:
    matrix = gaussian(8, 5, seed=0).requires_grad_()
    before = matrix.detach().clone()
    found = decompose(matrix)
    assert torch.equal(matrix.detach(), before)
    assert not found.u.requires_grad
    assert not found.singular_values.requires_grad


@pytest.mark.parametrize("method", METHODS)
def test_as_many_components_as_asked_for_come_back(method: str) -> None:
    matrix = gaussian(12, 9, seed=0)
    found = decompose(matrix, method=method, rank=3, power_iterations=12)
    assert (found.u.shape, found.singular_values.shape, found.vh.shape) == ((12, 3), (3,), (3, 9))
    torch.testing.assert_close(found.recompose(), decompose(matrix).recompose(3), atol=1e-4, rtol=0)


@law
@given(sizes, sizes, seeds, st.data())
def test_the_error_of_a_truncation_is_the_dropped_spectrum(rows: int, columns: int, seed: int, data) -> None:
    matrix = gaussian(rows, columns, seed, torch.float64)
    found = decompose(matrix)
    rank = data.draw(st.integers(0, min(rows, columns)))
    error = matrix - found.recompose(rank)
    dropped = found.singular_values[rank:]
    assert float(error.norm()) == pytest.approx(float(dropped.norm()), abs=1e-9)
    spectral = float(torch.linalg.matrix_norm(error, 2))
    assert spectral == pytest.approx(float(dropped[0]) if len(dropped) else 0.0, abs=1e-9)


@law
@given(st.integers(2, 16), st.integers(2, 16), seeds, st.data())
def test_no_matrix_of_the_same_rank_is_nearer_than_the_truncation(rows: int, columns: int, seed: int, data) -> None:
    matrix = gaussian(rows, columns, seed, torch.float64)
    rank = data.draw(st.integers(1, min(rows, columns) - 1))
    best = float((matrix - decompose(matrix).recompose(rank)).norm())
    left = gaussian(rows, rank, seed + 1, torch.float64)
    best_right = torch.linalg.lstsq(left, matrix).solution  # the nearest matrix with that column space
    right = gaussian(rank, columns, seed + 2, torch.float64)
    for rival in (left @ best_right, left @ right):
        assert best <= float((matrix - rival).norm()) + 1e-9


@law
@given(sizes, sizes, seeds, st.data())
def test_truncating_twice_is_truncating_once(rows: int, columns: int, seed: int, data) -> None:
    matrix = gaussian(rows, columns, seed)
    rank = data.draw(st.integers(0, min(rows, columns)))
    once = decompose(matrix).recompose(rank)
    twice = decompose(once).recompose(rank)
    torch.testing.assert_close(twice, once, atol=3e-5, rtol=0)


@law
@given(st.integers(2, 16), st.integers(2, 16), seeds, st.data())
def test_rotating_the_matrix_rotates_its_truncation(rows: int, columns: int, seed: int, data) -> None:
    matrix = gaussian(rows, columns, seed, torch.float64)
    left, right = rotation(rows, seed + 1), rotation(columns, seed + 2)
    rank = data.draw(st.integers(0, min(rows, columns)))
    plain, turned = decompose(matrix), decompose(left @ matrix @ right)
    torch.testing.assert_close(turned.singular_values, plain.singular_values, atol=1e-9, rtol=0)
    gaps = plain.singular_values[:-1] - plain.singular_values[1:]
    if rank in (0, len(gaps) + 1) or gaps[rank - 1] > 1e-3:  # where two values meet, the truncation is not unique
        torch.testing.assert_close(turned.recompose(rank), left @ plain.recompose(rank) @ right, atol=1e-7, rtol=0)


@law
@given(st.integers(1, 16), st.integers(1, 16), seeds, st.floats(1e-12, 1e12))
def test_scaling_the_matrix_scales_its_spectrum(rows: int, columns: int, seed: int, factor: float) -> None:
    matrix = gaussian(rows, columns, seed)
    plain, scaled = decompose(matrix), decompose(matrix * factor)
    largest = float(plain.singular_values[0]) * factor
    torch.testing.assert_close(
        scaled.singular_values / largest, plain.singular_values * factor / largest, atol=2e-6, rtol=0
    )


@pytest.mark.parametrize("rank", [-1, 5])
def test_recomposing_more_components_than_there_are_is_refused(rank: int) -> None:
    with pytest.raises(UsageError, match=f"Only 0 to 4 components can be kept, not {rank}"):
        decompose(gaussian(6, 4, seed=0)).recompose(rank)


@pytest.mark.parametrize("rank", [0, 5])
def test_asking_for_a_rank_the_matrix_has_not_is_refused_with_its_shape(rank: int) -> None:
    with pytest.raises(UsageError, match=f"rank lies in 1 to 4 for a 6 x 4 matrix, not {rank}"):
        decompose(gaussian(6, 4, seed=0), rank=rank)


def test_a_randomized_decomposition_without_a_rank_is_refused() -> None:
    with pytest.raises(UsageError, match="needs the rank"):
        decompose(gaussian(6, 4, seed=0), method="randomized")


def test_an_empty_matrix_is_refused_with_its_shape() -> None:
    with pytest.raises(UsageError, match=r"at least one row and column is needed, not shape \(0, 4\)"):
        decompose(torch.zeros(0, 4))


def test_factors_that_do_not_share_a_rank_are_refused_with_their_shapes() -> None:
    with pytest.raises(Exception, match="rank"):  # jaxtyping's message in tests, ours outside them
        SingularValueDecomposition(torch.zeros(4, 2), torch.zeros(3), torch.zeros(3, 5))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_nan_and_infinity_are_refused_and_counted(method: str, bad: float) -> None:
    matrix = gaussian(6, 4, seed=0)
    matrix[2, 1] = matrix[5, 3] = bad
    with pytest.raises(DecompositionError, match="2 of the matrix's 24 entries are NaN or infinite"):
        decompose(matrix, method=method, rank=2)
