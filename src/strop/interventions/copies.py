"""What becomes of hooks when the model they are on is copied or pickled."""

import copy
from typing import Any, NoReturn, TypeVar

from strop.errors import InterventionError

Kept = TypeVar("Kept")


def copy_with_model(kept: Kept, memo: dict[int, Any]) -> Kept:
    """Return a deep copy, as part of that of a model: the copy of the model is edited as the model is, and lives alone."""
    found: Kept = object.__new__(type(kept))
    memo[id(kept)] = found
    vars(found).update(copy.deepcopy(vars(kept), memo))
    return found


def refuse_pickling() -> NoReturn:
    """Raise InterventionError: a pickled hook would edit a model that nothing can be detached from."""
    raise InterventionError(
        "A model with edits of hidden states, or edits that learn, on cannot be pickled; detach them, and save the recipe."
    )
