"""Entries of a recipe that make no intervention, and what every method begins with."""

from typing import Any

import pytest
import torch
from tests.fixtures.every_method import SITES, AnyEdit, any_method

from strop.errors import RecipeError, UsageError
from strop.interventions import (
    intervention_from_json,
    method_names,
)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"method": "prune"}, f"'prune' is not a method this version knows ({', '.join(method_names())})"),
        ({"method": None}, "'None' is not a method this version knows"),
        ({"method": ["rank_reduction"]}, "is not a method this version knows"),
        ({"layer": None}, "layer"),
        ({"layer": "three"}, "layer"),
        ({"layer": 1.5}, "layer"),
        ({"layer": -1}, "A layer is counted from 0; -1 is not one"),
        ({"layer": True}, "layer"),
        ({"matrix_type": "lm_head"}, "'lm_head' cannot be edited"),
        ({"rank_fraction": 1.0}, "lies in [0, 1), not 1.0"),
        ({"rank_fraction": "much"}, "much"),
        ({"head": 0}, "A up matrix has no heads"),
        ({"matrix_type": "key", "head": "0"}, "head"),
        ({"matrix_type": "key", "head": 0.5}, "head"),
    ],
)
def test_an_entry_that_makes_no_intervention_is_refused_with_its_reason(change: dict[str, Any], complaint: str) -> None:
    entry = {"method": "rank_reduction", "layer": 3, "matrix_type": "up", "rank_fraction": 0.1, "rank": 3}
    with pytest.raises(RecipeError) as caught:
        intervention_from_json({**entry, **change})
    assert complaint in str(caught.value)


@pytest.mark.parametrize("missing", ["method", "layer", "matrix_type", "rank_fraction"])
def test_an_entry_that_lacks_a_field_is_refused_by_the_fields_name(missing: str) -> None:
    entry = {"method": "rank_reduction", "layer": 3, "matrix_type": "up", "rank_fraction": 0.1}
    del entry[missing]
    with pytest.raises(RecipeError, match="not a method" if missing == "method" else f"lacks '{missing}'"):
        intervention_from_json(entry)


@any_method
def test_a_hidden_size_stands_for_a_square_shape(edit: AnyEdit) -> None:
    intervention = edit(SITES[1])
    try:
        expected = intervention.initial_tensors((32, 32), generator=torch.Generator().manual_seed(0))
    except UsageError:
        with pytest.raises(UsageError, match="cannot begin as the identity"):
            intervention.initial_tensors(32)
        return
    found = intervention.initial_tensors(32, generator=torch.Generator().manual_seed(0))
    assert found.keys() == expected.keys()
    assert all(torch.equal(own, expected[name]) for name, own in found.items())
