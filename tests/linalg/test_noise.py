"""What looks like noise: by hand, by NumPy, and where there is nothing to tell."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from strop.errors import UsageError
from strop.linalg import noise_threshold, signal_to_noise

law = settings(deadline=None, max_examples=50, database=None)


def test_the_threshold_is_the_interquartile_range_over_that_of_normal_numbers() -> None:
    """By hand: of 1, 2, 3, 4, 5 the middle half spans 2 to 4, and √(min / max) of 5 x 20 is a half."""
    values = torch.tensor([5.0, 4.0, 3.0, 2.0, 1.0])
    assert noise_threshold(values, (5, 20)) == pytest.approx(2 / 1.349 * 1.5)
    assert noise_threshold(values, (20, 5)) == noise_threshold(values, (5, 20))
    assert noise_threshold(values, (5, 5)) == pytest.approx(2 / 1.349 * 2)
    assert signal_to_noise(values, noise_threshold(values, (5, 20))) == pytest.approx((5 + 4 + 3) / (2 + 1))


@law
@given(st.lists(st.floats(0, 1e4, width=32), min_size=1, max_size=40), st.integers(0, 60), st.floats(0.01, 100))
def test_it_is_what_numpy_computes_whatever_the_order_and_scale(values: list[float], more: int, scale: float) -> None:
    shape = (len(values), len(values) + more)
    upper, lower = np.percentile(values, 75), np.percentile(values, 25)
    expected = (upper - lower) / 1.349 * (1 + math.sqrt(shape[0] / shape[1]))
    assert noise_threshold(torch.tensor(values), shape) == pytest.approx(expected, rel=1e-9, abs=1e-9)
    scaled = torch.tensor(values, dtype=torch.float64) * scale
    assert noise_threshold(scaled.flip(0), shape) == pytest.approx(scale * expected, rel=1e-9, abs=1e-9)


def test_of_nothing_but_noise_a_part_stands_above_it_and_nothing_above_the_edge_of_marchenko_and_pastur() -> None:
    """Which is why it is called a rule of thumb."""
    noise = torch.randn(200, 300, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(noise)
    edge = math.sqrt(200) + math.sqrt(300)
    assert float(values[0]) < 1.02 * edge
    assert int((values > noise_threshold(values, (200, 300))).sum()) > 40


def test_a_spectrum_that_tells_nothing_has_no_ratio_or_an_endless_one() -> None:
    equal, zero = torch.full((6,), 2.0), torch.zeros(6)
    one = torch.tensor([3.0, 0.0, 0.0, 0.0, 0.0])
    halves = torch.tensor([1.0, 1.0, 1.0, 0.0, 0.0, 0.0])
    assert noise_threshold(equal, (6, 6)) == 0
    assert signal_to_noise(equal, 0.0) == math.inf
    assert noise_threshold(zero, (6, 9)) == 0
    assert math.isnan(signal_to_noise(zero, 0.0))
    assert signal_to_noise(one, noise_threshold(one, (5, 5))) == math.inf  # of rank one: what is cut is nothing
    assert noise_threshold(halves, (6, 6)) > 1
    assert signal_to_noise(halves, noise_threshold(halves, (6, 6))) == 0


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_has_no_threshold_and_no_ratio(bad: float) -> None:
    values = torch.tensor([bad, 2.0, 1.0])
    assert math.isnan(noise_threshold(values, (3, 4)))
    assert math.isnan(signal_to_noise(values, 1.0))
    assert math.isnan(signal_to_noise(torch.tensor([2.0, 1.0]), math.nan))


def test_values_of_another_matrix_are_refused() -> None:
    with pytest.raises(UsageError, match=r"^A 3 x 4 matrix has 3 singular values, not 2\.$"):
        noise_threshold(torch.ones(2), (3, 4))
