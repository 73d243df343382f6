"""The methods a recipe may name: a closed list, so that nothing a recipe says is ever imported."""

from collections.abc import Mapping
from typing import Any

from strop.errors import RecipeError, StropError
from strop.interventions.base import Intervention
from strop.interventions.low_rank_edit import FORMULAS, LowRankEdit
from strop.interventions.rank_reduction import RankReduction
from strop.interventions.singular_value_pruning import SingularValuePruning

METHODS: dict[str, type[RankReduction] | type[SingularValuePruning] | type[LowRankEdit]] = {
    RankReduction.method: RankReduction,
    SingularValuePruning.method: SingularValuePruning,
    **dict.fromkeys(FORMULAS, LowRankEdit),
}


def intervention_from_json(entry: Mapping[str, Any]) -> Intervention:
    """Return the intervention an entry of a recipe describes.

    Raises:
        RecipeError: the entry names no known method, or its fields do not make one.
    """
    method = entry.get("method")
    if not isinstance(method, str) or method not in METHODS:
        raise RecipeError(f"'{method}' is not a method this version knows ({', '.join(METHODS)}).")
    try:
        return METHODS[method].from_json(entry)
    except (KeyError, TypeError, ValueError, StropError) as error:
        missing = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        raise RecipeError(f"An entry of method {method} cannot be read: {missing}") from None
