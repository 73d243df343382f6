"""Laws of the singular value decomposition, whichever solver answers."""

from collections.abc import Callable

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from strop.errors import DecompositionError, UsageError
from strop.linalg import SingularValueDecomposition, decompose, fingerprint, without_components

METHODS = ["auto", "exact", "gram", "randomized"]

law = settings(deadline=None, max_examples=25, database=None)
sizes = st.integers(1, 24)
seeds = st.integers(0, 2**20)


def gaussian(rows: int, columns: int, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def rotation(size: int, seed: int) -> Tensor:
    return torch.linalg.qr(gaussian(size, size, seed, torch.float64)).Q


def with_spectrum(rows: int, columns: int, values: Tensor, seed: int = 0) -> Tensor:
    """A float32 matrix with chosen singular values."""
    u = rotation(rows, seed)[:, : len(values)]
    v = rotation(columns, seed + 1)[:, : len(values)]
    return ((u * values.double()) @ v.T).float()


def all_factors(matrix: Tensor, method: str) -> SingularValueDecomposition:
    rank = min(matrix.shape) if method == "randomized" else None
    return decompose(matrix, method=method, rank=rank)


def assert_is_decomposition_of(matrix: Tensor, found: SingularValueDecomposition, tolerance: float = 2e-5) -> None:
    values = found.singular_values
    rank = values.shape[0]
    scale = float(torch.linalg.matrix_norm(matrix.double(), 2)) or 1.0
    assert found.shape == tuple(matrix.shape)
    assert torch.all(values[:-1] >= values[1:])
    assert torch.all(values >= -tolerance * scale)
    eye = torch.eye(rank, dtype=values.dtype)
    torch.testing.assert_close(found.u.T @ found.u, eye, atol=tolerance, rtol=0)
    torch.testing.assert_close(found.vh @ found.vh.T, eye, atol=tolerance, rtol=0)
    torch.testing.assert_close(found.recompose(), matrix.to(values.dtype), atol=tolerance * scale, rtol=0)


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


# The ladder of fallbacks


def raising(error: Exception) -> Callable[..., None]:
    def solver(*arguments: object, **settings: object) -> None:
        raise error

    return solver


def giving_nan(matrix: Tensor, full_matrices: bool = True) -> tuple[Tensor, Tensor, Tensor]:
    k = min(matrix.shape)
    return (
        matrix.new_full((matrix.shape[0], k), torch.nan),
        matrix.new_full((k,), torch.nan),
        matrix.new_full((k, matrix.shape[1]), torch.nan),
    )


@pytest.fixture
def spied_scipy(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The LAPACK drivers scipy was asked for, in order."""
    asked: list[str] = []
    solver = scipy.linalg.svd

    def spy(matrix: np.ndarray, **settings: object) -> object:
        asked.append(str(settings["lapack_driver"]))
        assert matrix.dtype == np.float64
        return solver(matrix, **settings)

    monkeypatch.setattr(scipy.linalg, "svd", spy)
    return asked


@pytest.mark.parametrize("failure", [torch.linalg.LinAlgError("did not converge\nmore"), giving_nan])
def test_qr_iteration_in_float64_answers_when_divide_and_conquer_fails(
    failure: object, monkeypatch: pytest.MonkeyPatch, spied_scipy: list[str]
) -> None:
    matrix = gaussian(12, 12, seed=0)
    monkeypatch.setattr(torch.linalg, "svd", raising(failure) if isinstance(failure, Exception) else failure)
    assert_is_decomposition_of(matrix, decompose(matrix))
    assert spied_scipy == ["gesvd"]


@pytest.mark.parametrize("failure", [np.linalg.LinAlgError("SVD did not converge"), MemoryError("no room")])
def test_the_gram_matrix_answers_when_both_exact_solvers_fail(
    failure: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    matrix = gaussian(12, 12, seed=0)
    monkeypatch.setattr(torch.linalg, "svd", raising(torch.linalg.LinAlgError("did not converge")))
    monkeypatch.setattr(scipy.linalg, "svd", raising(failure))
    assert_is_decomposition_of(matrix, decompose(matrix, method="exact"))


@pytest.mark.parametrize("method", ["auto", "exact", "gram"])
def test_when_every_solver_fails_one_message_names_them_all(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.linalg, "svd", raising(torch.linalg.LinAlgError("first reason\nand a traceback")))
    monkeypatch.setattr(scipy.linalg, "svd", raising(np.linalg.LinAlgError("second reason")))
    monkeypatch.setattr(torch.linalg, "eigh", raising(torch.linalg.LinAlgError("third reason")))
    with pytest.raises(DecompositionError) as caught:
        decompose(gaussian(12, 7, seed=0), method=method)
    message = str(caught.value)
    assert "12 x 7" in message
    for part in (
        "divide and conquer: first reason",
        "QR iteration in float64: second reason",
        "Gram matrix: third reason",
    ):
        assert part in message
    assert "traceback" not in message


def test_a_bug_in_a_solver_is_not_taken_for_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.linalg, "svd", raising(TypeError("a bug")))
    with pytest.raises(TypeError, match="a bug"):
        decompose(gaussian(6, 6, seed=0))


@pytest.mark.parametrize("shape", [(64, 16), (16, 64)])
def test_an_ill_conditioned_matrix_is_refused_by_the_gram_solver_and_decomposed_as_well_as_ever(
    shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    matrix = with_spectrum(*shape, torch.logspace(0, -6, 16))
    truth = torch.linalg.svdvals(matrix.double())
    exact_calls = []
    solver = torch.linalg.svd

    def spy(*arguments: object, **settings: object) -> object:
        exact_calls.append(1)
        return solver(*arguments, **settings)

    monkeypatch.setattr(torch.linalg, "svd", spy)
    found = decompose(matrix, method="gram")
    assert exact_calls
    assert_is_decomposition_of(matrix, found)
    torch.testing.assert_close(found.singular_values.double(), truth, atol=3e-7, rtol=0)


def test_a_well_conditioned_tall_matrix_never_reaches_the_slower_solvers(monkeypatch: pytest.MonkeyPatch) -> None:
    matrix = gaussian(64, 16, seed=0)
    monkeypatch.setattr(torch.linalg, "svd", raising(RuntimeError("not to be called")))
    monkeypatch.setattr(scipy.linalg, "svd", raising(RuntimeError("not to be called")))
    found = decompose(matrix)
    assert_is_decomposition_of(matrix, found)
    truth = torch.linalg.eigvalsh(matrix.T.double() @ matrix.double())
    torch.testing.assert_close(found.singular_values.double(), truth.flip(0).sqrt(), rtol=1e-6, atol=0)


def test_the_gram_solver_keeps_its_factors_orthonormal_up_to_the_condition_it_trusts() -> None:
    matrix = with_spectrum(200, 50, torch.logspace(0, -3.9, 50))
    assert_is_decomposition_of(matrix, decompose(matrix, method="gram"), tolerance=3e-6)


# Chosen components


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


# The randomised solver


def test_the_same_seed_gives_the_same_bits_and_another_seed_others() -> None:
    matrix = gaussian(60, 40, seed=0)
    torch.manual_seed(1)
    first = decompose(matrix, method="randomized", rank=5, seed=7)
    torch.manual_seed(2)
    again = decompose(matrix, method="randomized", rank=5, seed=7)
    other = decompose(matrix, method="randomized", rank=5, seed=8)
    assert torch.equal(first.u, again.u)
    assert torch.equal(first.singular_values, again.singular_values)
    assert torch.equal(first.vh, again.vh)
    assert not torch.equal(first.u, other.u)


def test_the_randomized_solver_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    decompose(gaussian(20, 20, seed=0), method="randomized", rank=3)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("seed", range(4))
def test_a_decaying_spectrum_is_found_within_a_thousandth_of_the_best_error(seed: int) -> None:
    matrix = with_spectrum(120, 80, 0.9 ** torch.arange(80), seed)
    best = float((matrix - decompose(matrix).recompose(8)).norm())
    error = float((matrix - decompose(matrix, method="randomized", rank=8, seed=seed).recompose()).norm())
    assert best <= error * (1 + 1e-6)
    assert error <= best * 1.001


@pytest.mark.parametrize("seed", range(4))
def test_a_flat_spectrum_is_found_no_worse_than_by_torch_svd_lowrank_without_oversampling(seed: int) -> None:
    matrix = gaussian(150, 100, seed)  # the hard case: the spectrum of noise
    torch.manual_seed(seed)
    u, s, v = torch.svd_lowrank(matrix, q=5, niter=2)
    theirs = float((matrix - (u * s) @ v.T).norm())
    ours = float((matrix - decompose(matrix, method="randomized", rank=5, seed=seed).recompose()).norm())
    best = float((matrix - decompose(matrix).recompose(5)).norm())
    assert best <= ours * (1 + 1e-6)
    assert ours <= theirs
