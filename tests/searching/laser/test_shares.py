"""The shares of a race: nested, growing, and read only where they are new."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from strop.searching.laser.shares import FEWEST, nested_order, share_ends


@given(st.integers(1, 3000))
def test_shares_double_up_to_all_examples_and_none_is_too_small(count: int) -> None:
    ends = share_ends(count)
    assert ends[-1] == count
    assert len(ends) == 1 or ends[0] >= FEWEST
    assert ends[0] < 2 * FEWEST
    assert all(small == -(-large // 2) for small, large in zip(ends, ends[1:], strict=False))


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=60), st.integers(0, 5))
def test_every_beginning_holds_the_categories_nearly_in_proportion(categories: list[str], seed: int) -> None:
    order = nested_order(categories, len(categories), seed=seed)
    assert sorted(order) == list(range(len(categories)))
    drawn = np.array(categories)[order]
    for end in range(1, len(categories) + 1):
        for name in set(categories):
            wanted = categories.count(name) * end / len(categories)
            assert abs((drawn[:end] == name).sum() - wanted) < 3


def test_the_order_is_drawn_by_the_seed() -> None:
    orders = [nested_order(None, 40, seed=seed).tolist() for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]


@pytest.mark.parametrize(("count", "ends"), [(300, (19, 38, 75, 150, 300)), (31, (16, 31)), (30, (30,))])
def test_share_ends_by_hand(count: int, ends: tuple[int, ...]) -> None:
    assert share_ends(count) == ends
