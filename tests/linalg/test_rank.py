"""The one rounding rule, and LASER's own."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strop.errors import UsageError
from strop.linalg import fraction_for_rank, rank_for_fraction, rank_for_laser_rate

law = settings(deadline=None, max_examples=200, database=None)
shapes = st.tuples(st.integers(1, 100_000), st.integers(1, 100_000))


@pytest.mark.parametrize(
    ("rank_fraction", "shape", "rank"),
    [
        (0.01, (1600, 1600), 16),  # 0.01 * 1600 is 16.000000000000004 or 15.99…, by the order of its factors
        (0.01, (4096, 4096), 40),
        (0.01, (1536, 576), 5),
        (0.01, (576, 1536), 5),
        (0.29, (100, 100), 29),  # 0.29 * 100 is 28.999999999999996
        (0.57, (100, 300), 57),  # 0.57 * 100 is 56.99999999999999
        (0.999, (10, 10), 9),
        (0.0, (8, 8), 0),
        (0.01, (64, 64), 0),
        (0.5, (1, 7), 0),
    ],
)
def test_the_rank_is_the_floor_of_the_kept_share(rank_fraction: float, shape: tuple[int, int], rank: int) -> None:
    assert rank_for_fraction(rank_fraction, shape) == rank


@law
@given(shapes, st.floats(0, 1, exclude_max=True))
def test_a_share_below_one_always_removes_something(shape: tuple[int, int], rank_fraction: float) -> None:
    rank = rank_for_fraction(rank_fraction, shape)
    assert 0 <= rank < min(shape)
    assert abs(rank - rank_fraction * min(shape)) < 1 + 1e-6


@pytest.mark.parametrize("shape", [(1, 1), (1600, 1600), (4096, 11008)])
def test_the_largest_number_below_one_still_removes_something(shape: tuple[int, int]) -> None:
    assert rank_for_fraction(0.9999999999999999, shape) == min(shape) - 1


@law
@given(shapes, st.floats(0, 0.999), st.floats(0, 0.999))
def test_a_larger_share_never_keeps_less(shape: tuple[int, int], one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert rank_for_fraction(low, shape) <= rank_for_fraction(high, shape)


@pytest.mark.parametrize("rank_fraction", [1.0, -0.01, 1.5, float("nan"), float("inf")])
def test_a_share_outside_its_bounds_is_refused_with_the_rule_and_the_value(rank_fraction: float) -> None:
    with pytest.raises(UsageError, match=rf"is kept and lies in \[0, 1\), not {rank_fraction}"):
        rank_for_fraction(rank_fraction, (8, 8))


@law
@given(shapes, st.data())
def test_the_fraction_of_a_rank_gives_the_rank_back(shape: tuple[int, int], data) -> None:
    rank = data.draw(st.integers(0, min(shape) - 1))
    assert rank_for_fraction(fraction_for_rank(rank, shape), shape) == rank


@pytest.mark.parametrize("size", [5, 576, 1536, 1600, 4096])
def test_the_fraction_of_every_rank_of_a_matrix_gives_the_rank_back(size: int) -> None:
    shape = (size, 2 * size)
    assert [rank_for_fraction(fraction_for_rank(rank, shape), shape) for rank in range(size)] == list(range(size))


@pytest.mark.parametrize("rank", [-1, 576, 600])
def test_a_rank_that_removes_nothing_has_no_fraction(rank: int) -> None:
    with pytest.raises(UsageError, match=f"lies in 0 to 575 for a 1536 x 576 matrix, not {rank}"):
        fraction_for_rank(rank, (1536, 576))


@law
@given(shapes, st.floats(0, 10))
def test_a_laser_rate_means_what_the_published_code_makes_of_it(shape: tuple[int, int], rate: float) -> None:
    max_rank = min(shape)  # as in github.com/pratyushasharma/laser, src/laser/matrix_utils.py and *_laser.py
    assert rank_for_laser_rate(rate, shape) == int(max_rank * ((10 - rate) * 0.1))


@pytest.mark.parametrize("rate", [-0.1, 10.1, float("nan")])
def test_a_laser_rate_outside_its_scale_is_refused(rate: float) -> None:
    with pytest.raises(UsageError, match=rf"rate lies in 0 to 10, not {rate}"):
        rank_for_laser_rate(rate, (8, 8))
