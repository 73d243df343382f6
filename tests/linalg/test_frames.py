"""Laws of orthonormal frames: the rows of a free matrix made orthonormal."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from strop.errors import DecompositionError
from strop.linalg import orthonormal_rows, rows_made_orthonormal

law = settings(deadline=None, max_examples=40, database=None)
seeds = st.integers(0, 2**20)


def gaussian(rank: int, features: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(rank, features, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def frame_of(rank: int, features: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """A frame from elsewhere: QR of a random matrix."""
    return torch.linalg.qr(gaussian(features, rank, seed, torch.float64)).Q.T.contiguous().to(dtype)


def with_condition(rank: int, features: int, condition: float, seed: int) -> Tensor:
    """Rows with singular values from 1 down to 1/condition."""
    values = torch.logspace(0, -torch.log10(torch.tensor(condition)).item(), rank, dtype=torch.float64)
    mixing = torch.linalg.qr(gaussian(rank, rank, seed + 1, torch.float64)).Q
    return (mixing * values) @ frame_of(rank, features, seed)


def gram_schmidt(raw: Tensor) -> Tensor:
    """The textbook's procedure, a row at a time, in float64."""
    rows: list[Tensor] = []
    for row in raw.double():
        rest = row.clone()
        for earlier in rows * 2:  # twice is enough
            rest = rest - (rest @ earlier) * earlier
        rows.append(rest / rest.norm())
    return torch.stack(rows)


def assert_orthonormal(rows: Tensor, tolerance: float = 1e-5) -> None:
    eye = torch.eye(rows.shape[0], dtype=rows.dtype)
    torch.testing.assert_close(rows @ rows.T, eye, atol=tolerance, rtol=0)


@pytest.mark.parametrize("features", [32, 33, 64, 576, 4096])
def test_the_rows_are_orthonormal_at_every_rank(features: int) -> None:
    for rank in range(1, 33):
        raw = gaussian(rank, features, seed=rank)
        if rank == features:
            raw = with_condition(rank, features, 100, seed=rank).float()
        found = orthonormal_rows(raw)
        assert found.shape == raw.shape
        assert_orthonormal(found)


@pytest.mark.parametrize("size", [1, 2, 8, 32])
def test_as_many_rows_as_features_make_a_rotation(size: int) -> None:
    found = orthonormal_rows(with_condition(size, size, 10, seed=size).float())
    assert_orthonormal(found)
    assert_orthonormal(found.T)


@law
@given(st.integers(1, 12), st.integers(0, 30), st.floats(1, 500), seeds)
def test_the_rows_are_orthonormal_and_span_what_the_matrix_spans(
    rank: int, more: int, condition: float, seed: int
) -> None:
    raw = with_condition(rank, rank + more, condition, seed)
    found = orthonormal_rows(raw.float())
    assert_orthonormal(found)
    projected = (raw @ found.T.double()) @ found.double()
    torch.testing.assert_close(projected, raw, atol=1e-5, rtol=0)


@law
@given(st.integers(1, 12), st.integers(0, 30), st.floats(1, 50), seeds)
def test_the_frame_is_that_of_gram_and_schmidt(rank: int, more: int, condition: float, seed: int) -> None:
    raw = with_condition(rank, rank + more, condition, seed)
    torch.testing.assert_close(orthonormal_rows(raw), gram_schmidt(raw), atol=1e-9, rtol=0)
    torch.testing.assert_close(orthonormal_rows(raw.float()).double(), gram_schmidt(raw), atol=2e-3, rtol=0)


@law
@given(st.integers(1, 12), st.integers(0, 30), seeds)
def test_a_frame_is_its_own_frame(rank: int, more: int, seed: int) -> None:
    frame = frame_of(rank, rank + more, seed)
    torch.testing.assert_close(orthonormal_rows(frame), frame, atol=1e-12, rtol=0)
    torch.testing.assert_close(orthonormal_rows(frame.float()), frame.float(), atol=2e-6, rtol=0)
    once = orthonormal_rows(gaussian(rank, rank + more + 4, seed))
    torch.testing.assert_close(orthonormal_rows(once), once, atol=2e-6, rtol=0)


@law
@given(st.integers(1, 8), st.integers(4, 30), st.floats(1e-3, 1e3), seeds)
def test_the_length_of_the_rows_does_not_matter(rank: int, more: int, scale: float, seed: int) -> None:
    raw = gaussian(rank, rank + more, seed, torch.float64)
    torch.testing.assert_close(orthonormal_rows(raw * scale), orthonormal_rows(raw), atol=1e-9, rtol=0)


@law
@given(st.integers(1, 8), st.integers(4, 30), seeds)
def test_a_rotation_of_the_features_rotates_the_frame(rank: int, more: int, seed: int) -> None:
    raw = gaussian(rank, rank + more, seed, torch.float64)
    rotation = frame_of(rank + more, rank + more, seed + 1)
    torch.testing.assert_close(orthonormal_rows(raw @ rotation), orthonormal_rows(raw) @ rotation, atol=1e-9, rtol=0)


@pytest.mark.parametrize("rank", [2, 8, 32])
def test_a_row_depends_on_those_before_it_alone(rank: int) -> None:
    raw = gaussian(rank, 96)
    found = orthonormal_rows(raw)
    for kept in range(1, rank):
        other = torch.cat([raw[:kept], gaussian(rank - kept, 96, seed=kept)])
        torch.testing.assert_close(orthonormal_rows(other)[:kept], found[:kept], atol=1e-6, rtol=0)
        torch.testing.assert_close(orthonormal_rows(raw[:kept]), found[:kept], atol=1e-6, rtol=0)


def test_no_gradient_runs_from_a_row_to_later_ones() -> None:
    raw = gaussian(6, 20).requires_grad_(True)
    orthonormal_rows(raw)[:3].square().mul(torch.arange(60.0).view(3, 20)).sum().backward()
    assert raw.grad is not None
    assert (raw.grad[3:] == 0).all()
    assert (raw.grad[:3] != 0).any(1).all()


@pytest.mark.parametrize(("rank", "features"), [(1, 1), (1, 5), (3, 3), (4, 9)])
def test_its_gradients_are_right(rank: int, features: int) -> None:
    raw = with_condition(rank, features, 5, seed=1).requires_grad_(True)
    assert torch.autograd.gradcheck(orthonormal_rows, raw)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_it_is_computed_in_float32_or_where_asked_for_in_float64(dtype: torch.dtype) -> None:
    found = orthonormal_rows(gaussian(8, 64).to(dtype))
    assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert_orthonormal(found, 1e-12 if dtype == torch.float64 else 1e-5)


def test_the_matrix_it_is_given_stays_as_it_is() -> None:
    raw = gaussian(8, 64)
    before = raw.clone()
    orthonormal_rows(raw)
    assert torch.equal(raw, before)


DEPENDENT = {
    "the same row twice": lambda raw: raw.index_copy(0, torch.tensor([3]), raw[:1]),
    "a row of nothing": lambda raw: raw.index_fill(0, torch.tensor([2]), 0.0),
    "a row that is the sum of others": lambda raw: raw.index_copy(0, torch.tensor([3]), raw[:3].sum(0, keepdim=True)),
    "NaN": lambda raw: raw.index_fill(0, torch.tensor([1]), torch.nan),
    "infinity": lambda raw: raw.index_fill(0, torch.tensor([1]), torch.inf),
}


@pytest.mark.parametrize("spoil", DEPENDENT.values(), ids=DEPENDENT)
def test_dependent_rows_are_refused_in_a_sentence(spoil: "object") -> None:
    assert callable(spoil)
    with pytest.raises(
        DecompositionError, match=r"^The 4 rows of a learned subspace .* lower learning rate\.$"
    ) as caught:
        orthonormal_rows(spoil(gaussian(4, 16)))
    assert "\n" not in str(caught.value)


def test_rows_that_rounding_alone_tells_apart_are_refused() -> None:
    """A row that is another one twice over has nothing left but rounding errors, which are no direction to edit."""
    for seed in range(60):
        raw = orthonormal_rows(gaussian(4, 64, seed=seed))
        raw[3] = raw[seed % 3]
        with pytest.raises(DecompositionError, match="linearly dependent"):
            orthonormal_rows(raw)


def test_more_rows_than_features_are_refused() -> None:
    with pytest.raises(DecompositionError, match="linearly dependent"):
        orthonormal_rows(gaussian(5, 4))


def test_several_matrices_are_made_orthonormal_at_once_each_as_alone() -> None:
    raw = torch.stack([with_condition(4, 24, 20, seed) for seed in range(5)]).requires_grad_(True)
    weights = gaussian(4, 24, seed=7, dtype=torch.float64)
    together = orthonormal_rows(raw)
    torch.autograd.backward((together * weights).sum())
    for index, alone in enumerate(raw.detach()):
        own = alone.clone().requires_grad_(True)
        found = orthonormal_rows(own)
        torch.testing.assert_close(together[index], found, atol=1e-12, rtol=0)
        torch.autograd.backward((found * weights).sum())
        assert raw.grad is not None
        torch.testing.assert_close(raw.grad[index], own.grad, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("spoil", DEPENDENT.values(), ids=DEPENDENT)
def test_one_set_of_dependent_rows_among_several_is_refused_when_asked(spoil: "object") -> None:
    assert callable(spoil)
    frames = rows_made_orthonormal(torch.stack([gaussian(4, 16), spoil(gaussian(4, 16, seed=1)), gaussian(4, 16, 2)]))
    with pytest.raises(DecompositionError, match=r"^The 4 rows of a learned subspace .* lower learning rate\.$"):
        frames.check()
    assert_orthonormal(frames.rows[0])
    assert_orthonormal(frames.rows[2])
