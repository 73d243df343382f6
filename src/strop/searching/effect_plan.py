"""How the effects of components are estimated."""

import dataclasses
from typing import Literal, get_args

from strop.errors import UsageError
from strop.linalg import Reduction

Counterfactual = Literal["zero", "mean", "roll", "pairs"]
"""What a component sees instead of its input: nothing, the sample's mean, another example's, or a given prompt's."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class EffectPlan:
    """How effects are estimated.

    Raises:
        UsageError: a setting is not among those there are.
    """

    counterfactual: Counterfactual = "zero"
    reduction: Reduction = "sum"
    """How the effects at many tokens become the score a component is ranked by."""
    steps: int = 1
    """Points on the way from the counterfactual's embeddings to the real ones that the gradient is averaged over."""

    def __post_init__(self) -> None:
        for name, allowed in (("counterfactual", get_args(Counterfactual)), ("reduction", get_args(Reduction))):
            if getattr(self, name) not in allowed:
                raise UsageError(f"{name} is one of {', '.join(allowed)}, not '{getattr(self, name)}'.")
        if self.steps < 1:
            raise UsageError(f"steps is 1 or more, not {self.steps}.")
