"""Laws of the figures that describe a spectrum."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from strop.errors import UsageError
from strop.linalg import effective_rank, retained_energy, spectrum_of

law = settings(deadline=None, max_examples=100, database=None)
spectra = st.lists(st.floats(0, 1e6, width=32), min_size=1, max_size=30).map(
    lambda values: torch.tensor(sorted(values, reverse=True), dtype=torch.float32)
)


@law
@given(spectra)
def test_the_effective_rank_lies_between_one_and_the_number_of_nonzero_values(values: Tensor) -> None:
    nonzero = int((values > 0).sum())
    found = effective_rank(values)
    assert (found == 0) == (nonzero == 0)
    if nonzero:
        assert 1 - 1e-9 <= found <= nonzero + 1e-9


@law
@given(st.integers(1, 40), st.floats(2**-20, 2**20, width=32))
def test_equal_values_have_full_effective_rank(count: int, value: float) -> None:
    assert effective_rank(torch.full((count,), value)) == pytest.approx(count)


@law
@given(spectra, st.sampled_from([0.25, 2.0, 1024.0]))
def test_the_effective_rank_does_not_know_the_scale(values: Tensor, factor: float) -> None:
    assert effective_rank(values.double() * factor) == pytest.approx(effective_rank(values.double()))


def test_the_effective_rank_is_the_exponential_of_the_entropy() -> None:
    shares = [0.5, 0.25, 0.25]
    entropy = -sum(share * math.log(share) for share in shares)
    assert effective_rank(torch.tensor([2.0, 1.0, 1.0])) == pytest.approx(math.exp(entropy))


@law
@given(spectra)
def test_the_energy_kept_grows_from_nothing_to_all(values: Tensor) -> None:
    shares = [retained_energy(values, rank) for rank in range(len(values) + 1)]
    assert all(0 <= share <= 1 for share in shares)
    assert all(low <= high + 1e-12 for low, high in itertools.pairwise(shares))
    assert shares[-1] == 1
    if values.any():
        assert shares[0] == 0


@law
@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 999), st.data())
def test_the_energy_kept_is_the_share_of_the_squared_norm(rows: int, columns: int, seed: int, data) -> None:
    matrix = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
    rank = data.draw(st.integers(0, len(s)))
    kept = (u[:, :rank] * s[:rank]) @ vh[:rank]
    assert retained_energy(s, rank) == pytest.approx(float(kept.norm() ** 2 / matrix.norm() ** 2))


@pytest.mark.parametrize("rank", [-1, 4])
def test_keeping_more_components_than_there_are_is_refused(rank: int) -> None:
    with pytest.raises(UsageError, match=f"Between 0 and 3 components can be kept, not {rank}"):
        retained_energy(torch.tensor([3.0, 2.0, 1.0]), rank)


@law
@given(spectra)
def test_a_summary_agrees_with_its_spectrum(values: Tensor) -> None:
    found = spectrum_of(values)
    assert (found.full_rank, found.largest, found.smallest) == (len(values), float(values[0]), float(values[-1]))
    assert 1 <= found.rank_for_90_percent <= found.full_rank
    assert retained_energy(values, found.rank_for_90_percent) >= 0.9 - 1e-9
    if found.rank_for_90_percent > 1:
        assert retained_energy(values, found.rank_for_90_percent - 1) < 0.9
    assert 0 <= found.energy_at_tenth <= 1


def test_a_zero_matrix_has_a_summary_too() -> None:
    found = spectrum_of(torch.zeros(4))
    assert (found.effective_rank, found.largest, found.full_rank) == (0, 0, 4)
