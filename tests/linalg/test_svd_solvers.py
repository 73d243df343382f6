"""The solvers behind a decomposition: who answers when one fails, and what the randomised one promises."""

from collections.abc import Callable

import numpy as np
import pytest
import scipy.linalg
import torch
from tests.fixtures.matrices import (
    assert_is_decomposition_of,
    gaussian,
    with_spectrum,
)
from torch import Tensor

from strop.errors import DecompositionError, UsageError
from strop.linalg import decompose, decompose_together


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


@pytest.fixture
def decomposed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shapes of what LAPACK's own decomposition was asked for."""
    asked: list[tuple[int, ...]] = []
    solver = torch.linalg.svd

    def spy(matrix: Tensor, **settings: object) -> object:
        asked.append(tuple(matrix.shape))
        return solver(matrix, **settings)

    monkeypatch.setattr(torch.linalg, "svd", spy)
    return asked


LOST = {
    "one value far below the others": torch.cat([torch.linspace(3, 1, 15), torch.tensor([1e-6])]),
    "values that fall to nothing": torch.logspace(0, -12, 16),
    "values that fall slowly": torch.logspace(0, -6, 16),
    "nothing but zeros below": torch.cat([torch.linspace(2, 1, 10), torch.zeros(6)]),
    "one value and no other": torch.cat([torch.ones(1), torch.zeros(15)]),
}


@pytest.mark.parametrize("shape", [(64, 16), (16, 64), (16, 16)])
@pytest.mark.parametrize("values", LOST.values(), ids=LOST)
def test_what_the_square_loses_is_made_good_by_a_thin_decomposition(
    values: Tensor, shape: tuple[int, int], decomposed: list[tuple[int, ...]]
) -> None:
    matrix = with_spectrum(*shape, values)
    u, s, vh = np.linalg.svd(matrix.double().numpy(), full_matrices=False)
    found = decompose(matrix, method="gram")
    lost = int((torch.from_numpy(s) * 1e4 <= s[0]).sum())
    assert decomposed == [(lost, lost)]
    assert_is_decomposition_of(matrix, found, tolerance=2e-6)
    torch.testing.assert_close(found.singular_values.double(), torch.from_numpy(s), atol=1e-11 * s[0], rtol=2e-7)
    for index in range(16):
        alone = np.delete(abs(s - s[index]), index).min() > 1e-6 * s[0]
        if alone and s[index] > 1e-7 * s[0]:
            assert abs(float(found.u[:, index].double().numpy() @ u[:, index])) > 1 - 1e-6
            assert abs(float(found.vh[index].double().numpy() @ vh[index])) > 1 - 1e-6


def test_square_matrices_of_noise_never_need_a_whole_decomposition(decomposed: list[tuple[int, ...]]) -> None:
    """As layers begin: their smallest values are 1/n of the largest, and smaller by chance."""
    for seed in range(3):
        matrix = gaussian(96, 96, seed=seed)
        matrix[0] = matrix[1:].mean(0) + 1e-5 * matrix[0]
        assert_is_decomposition_of(matrix, decompose(matrix, method="gram"), tolerance=3e-6)
    assert decomposed == [(1, 1)] * 3


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


@pytest.mark.parametrize("shape", [(12, 5), (5, 12), (6, 6)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_matrices_decomposed_together_have_the_decompositions_of_each_alone(
    shape: tuple[int, int], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = torch.Generator().manual_seed(0)
    matrices = list(torch.randn(5, *shape, generator=generator).to(dtype))
    matrices[3][:, 0] = 0  # of lower rank, which the Gram matrix is not trusted with
    matrices[3][0] = 0
    alone = [decompose(matrix) for matrix in matrices]
    for most in (2**28, 2 * 8 * matrices[0].numel()):
        monkeypatch.setattr("strop.linalg.svd.TOGETHER_BYTES", most)
        for matrix, found, expected in zip(matrices, decompose_together(matrices), alone, strict=True):
            assert found.u.dtype == expected.u.dtype
            assert found.vh.is_contiguous()
            torch.testing.assert_close(found.singular_values, expected.singular_values, atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(found.recompose(), matrix.to(found.u.dtype), atol=1e-5, rtol=1e-5)
            identity = torch.eye(min(shape), dtype=found.u.dtype)
            torch.testing.assert_close(found.u.T @ found.u, identity, atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(found.vh @ found.vh.T, identity, atol=1e-5, rtol=1e-5)


def test_matrices_of_several_shapes_or_of_no_numbers_are_not_decomposed_together() -> None:
    assert decompose_together([]) == []
    with pytest.raises(UsageError, match="Matrices of one shape, dtype and device are decomposed together"):
        decompose_together([torch.eye(2), torch.eye(3)])
    with pytest.raises(DecompositionError, match="1 of the matrix's 4 entries are NaN or infinite"):
        decompose_together([torch.eye(2), torch.tensor([[1.0, float("nan")], [0.0, 1.0]])])
