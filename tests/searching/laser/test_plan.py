"""The plan: valid once built, and every setting out of its range named with the range."""

import json
from typing import Any

import pytest

from strop.errors import UsageError
from strop.searching import LASER_RANK_FRACTIONS, SearchPlan


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"strategy": "guess"}, "strategy is one of gradient, exhaustive, race, data-free, not 'guess'"),
        ({"compose": "all"}, "compose is one of none, greedy, beam, ordered, not 'all'"),
        ({"max_edits": 0}, "max_edits is 1 or more, not 0"),
        ({"select_limit": 0}, "select_limit is 1 or more, not 0"),
        ({"test_limit": -5}, "test_limit is 1 or more, not -5"),
        ({"gradient_examples": 0}, "gradient_examples is 1 or more, not 0"),
        ({"top_matrices": -1}, "top_matrices is 1 or more, not -1"),
        ({"finalists": 0}, "finalists is 1 or more, not 0"),
        ({"max_edits": 3}, r"3 edits \(max_edits, --max-edits\) need compose 'greedy'"),
        ({"beam": 0, "compose": "beam"}, "beam is 1 or more, not 0"),
        (
            {"beam": 4, "compose": "greedy"},
            r"beam \(--beam 4\) goes with compose 'beam' \(--compose beam\), not 'greedy'",
        ),
        ({"seed": -1}, "seed is 0 or more, not -1"),
        ({"layers": ()}, "layers is empty; leave it out to consider all"),
        ({"matrix_types": ()}, "matrix_types is empty"),
        ({"rank_fractions": ()}, "rank_fractions is empty"),
        ({"rank_fractions": (0.1, 1.5)}, r"lies in \[0, 1\), not 1.5"),
        ({"rank_fractions": (1.0,)}, r"lies in \[0, 1\), not 1.0"),
        ({"rank_fractions": (-0.1,)}, r"lies in \[0, 1\), not -0.1"),
        ({"rank_fractions": (float("nan"),)}, r"lies in \[0, 1\), not nan"),
    ],
    ids=str,
)
def test_a_setting_out_of_its_range_is_named(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        SearchPlan(**settings)


def test_a_plan_is_plain_json() -> None:
    plan = SearchPlan(compose="greedy", max_edits=4, layers=(1, 2), rank_fractions=LASER_RANK_FRACTIONS)
    written = json.loads(json.dumps(plan.to_json()))
    assert (written["compose"], written["max_edits"], written["layers"]) == ("greedy", 4, [1, 2])
    assert tuple(written["rank_fractions"]) == (0.9, 0.8, 0.6, 0.4, 0.2, 0.1, 0.05, 0.01, 0.005)
