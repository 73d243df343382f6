"""The plan of a pruning: valid once built, and every setting out of its range named with the range."""

import json
from typing import Any

import pytest

from strop.anatomy import MatrixType
from strop.errors import UsageError
from strop.searching import EffectPlan, PrunePlan

BETWEEN = r"A fraction \(fractions, --fraction\) .* lies between 0 and 1, both excluded, not"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"counterfactual": "shuffle"}, "counterfactual is one of zero, mean, roll, pairs, not 'shuffle'"),
        ({"reduction": "median"}, "reduction is one of consistency, sum, max, mean-abs, not 'median'"),
        ({"steps": 0}, "steps is 1 or more, not 0"),
        ({"bias": "median"}, "bias is one of none, mean, position, not 'median'"),
        ({"scopes": ("global", "galaxy")}, "scopes are among global, per-type, per-matrix, not 'galaxy'"),
        ({"scopes": ()}, "scopes is empty; leave it out for the default"),
        ({"matrix_types": ()}, "matrix_types is empty"),
        ({"layers": ()}, "layers is empty"),
        ({"fractions": ()}, "fractions is empty"),
        ({"fractions": (0.1, 0.0)}, f"{BETWEEN} 0"),
        ({"fractions": (1.0,)}, f"{BETWEEN} 1"),
        ({"fractions": (1.5,)}, f"{BETWEEN} 1.5"),
        ({"fractions": (-1.0,)}, f"{BETWEEN} -1"),
        ({"fractions": (float("nan"),)}, f"{BETWEEN} nan"),
        ({"iterate": 0}, "iterate is 1 or more, not 0"),
        ({"patience": 0}, "patience is 1 or more, not 0"),
        ({"effect_examples": 0}, "effect_examples is 1 or more, not 0"),
        ({"finalists": -1}, "finalists is 1 or more, not -1"),
        ({"select_limit": 0}, "select_limit is 1 or more, not 0"),
        ({"test_limit": -5}, "test_limit is 1 or more, not -5"),
        ({"seed": -1}, "seed is 0 or more, not -1"),
    ],
    ids=str,
)
def test_a_setting_out_of_its_range_is_named(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=rf"{said}.*\.$"):
        PrunePlan(**settings)


def test_a_plan_is_plain_json() -> None:
    plan = PrunePlan(layers=(1, 2), matrix_types=(MatrixType.KEY,), fractions=(0.1,))
    written = json.loads(json.dumps(plan.to_json()))
    assert (written["layers"], written["matrix_types"], written["fractions"]) == ([1, 2], ["key"], [0.1])
    assert (written["scopes"], written["bias"], written["select_limit"]) == (["global"], "none", 1000)


def test_effects_are_estimated_as_the_plan_says() -> None:
    plan = PrunePlan(counterfactual="mean", reduction="max", steps=3)
    assert plan.effects == EffectPlan(counterfactual="mean", reduction="max", steps=3)


def test_the_paper_takes_a_fifth_of_the_keys_at_once_whatever_is_predicted() -> None:
    paper = PrunePlan.paper()
    assert (paper.counterfactual, paper.reduction, paper.bias, paper.steps) == ("roll", "max", "position", 1)
    assert (paper.matrix_types, paper.fractions, paper.scopes) == ((MatrixType.KEY,), (0.2,), ("global",))
    assert (paper.iterate, paper.allow_harmful, paper.whole_matrices) == (1, True, False)
