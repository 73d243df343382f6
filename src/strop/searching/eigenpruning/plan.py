"""What a pruning is asked to do: a frozen value, valid once built."""

import dataclasses
import math
from typing import Any, Literal, get_args

from strop.anatomy import MatrixType, Stack
from strop.errors import UsageError
from strop.interventions import Bias
from strop.linalg import Reduction
from strop.searching.effect_plan import Counterfactual, EffectPlan
from strop.statistics import ObjectiveName

Scope = Literal["global", "per-type", "per-matrix"]
"""Among which components a fraction is taken: all that are considered, those of a matrix type, or those of one matrix."""

RANKED_BY = tuple(name for name in get_args(Reduction) if name != "squares")
"""The reductions that say which way an effect goes."""

FRACTIONS = (0.00002, 0.00005, 0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2)
"""Shares of the components that a round may remove."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PrunePlan:
    """The settings of a pruning.

    Raises:
        UsageError: a setting is out of its range; the message names it and the range.
    """

    counterfactual: Counterfactual = "zero"
    """What a removed component is thought to see: nothing, the sample's mean, another example's input, or a given prompt's."""
    reduction: Reduction = "consistency"
    """How effects at many tokens become the score that components are ranked by."""
    steps: int = 1
    """Points the gradient is averaged over, on the way from the counterfactual to the real input."""
    price_weight: float = 0.0
    """Nats of the task's loss that a nat of drift from the base is worth where components are ranked: above 0 they are ranked by
    the predicted change of the loss + weight · ½ F_i, F the Fisher information of the base's own text, whatever the reduction."""
    bias: Bias = "none"
    """What stays behind of removed components."""
    scopes: tuple[Scope, ...] = ("global",)
    """Among which components a fraction is taken; several are all tried."""
    matrix_types: tuple[MatrixType, ...] | None = None
    """Which matrices to consider; all by default."""
    search_types: bool = False
    """Try to prune each matrix type alone too, not only all at once."""
    layers: tuple[int, ...] | None = None
    """Which layers to consider; all by default."""
    stack: Stack | None = None
    """Which list of blocks, of a model that has several; the main one by default."""
    whole_matrices: bool = False
    """Decompose attention matrices whole, and not head by head."""
    fractions: tuple[float, ...] = FRACTIONS
    """Shares of the components a round may remove, each tried."""
    iterate: int = 16
    """Most rounds; effects are estimated anew in each, for they change as components go."""
    patience: int = 3
    """Rounds that may bring no lower loss on select before the pruning stops."""
    allow_harmful: bool = False
    """Prune components predicted to raise the loss too, if a fraction reaches that far."""
    effect_examples: int = 200
    """How many train examples effects are estimated on and fractions are screened on; of select where there is no train."""
    finalists: int = 2
    """How many of a round's candidates the screening leaves to be scored on select."""
    select_limit: int | None = 1000
    """Most select examples to choose by; None for all."""
    test_limit: int | None = None
    """Most test examples to measure the choice on; None for all."""
    objective: ObjectiveName = "average"
    """Which accuracy the choice maximises: of all select examples, or `macro`, the mean over the task's categories."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.reduction not in RANKED_BY:
            raise UsageError(f"reduction is one of {', '.join(RANKED_BY)}, not '{self.reduction}'.")
        EffectPlan(counterfactual=self.counterfactual, reduction=self.reduction, steps=self.steps)
        if self.bias not in get_args(Bias):
            raise UsageError(f"bias is one of {', '.join(get_args(Bias))}, not '{self.bias}'.")
        if self.objective not in get_args(ObjectiveName):
            raise UsageError(f"objective is one of {', '.join(get_args(ObjectiveName))}, not '{self.objective}'.")
        if not 0 <= self.price_weight < math.inf:
            raise UsageError(f"price_weight is 0 or more, not {self.price_weight}.")
        for scope in self.scopes:
            if scope not in get_args(Scope):
                raise UsageError(f"scopes are among {', '.join(get_args(Scope))}, not '{scope}'.")
        for name in ("iterate", "patience", "effect_examples", "finalists", "select_limit", "test_limit"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name} is 1 or more, not {value}.")
        for name in ("matrix_types", "layers", "scopes", "fractions"):
            if getattr(self, name) is not None and not getattr(self, name):
                raise UsageError(f"{name} is empty; leave it out for the default.")
        for fraction in self.fractions:
            if not 0 < fraction < 1:
                raise UsageError(
                    f"A fraction (fractions, --fraction) is the share of the components that is removed and lies between "
                    f"0 and 1, both excluded, not {fraction:g}."
                )
        if self.seed < 0:
            raise UsageError(f"seed is 0 or more, not {self.seed}.")

    @classmethod
    def paper(cls) -> "PrunePlan":
        """Return the published procedure's choices (eigenpruning, arXiv 2404.03147): for tasks of one length.

        Key matrices head by head, another example's activation as the counterfactual, the largest effect with its sign,
        a fifth of the components in one go whatever is predicted of them, and the mean output of each position left behind.

        >>> PrunePlan.paper().fractions
        (0.2,)
        """
        return cls(
            counterfactual="roll",
            reduction="max",
            bias="position",
            matrix_types=(MatrixType.KEY,),
            fractions=(0.2,),
            iterate=1,
            allow_harmful=True,
        )

    @property
    def effects(self) -> EffectPlan:
        """How effects are estimated."""
        return EffectPlan(counterfactual=self.counterfactual, reduction=self.reduction, steps=self.steps)

    def to_json(self) -> dict[str, Any]:
        """Return what a run's config.json holds, but for settings that older runs do not know and that change nothing."""
        settings = dataclasses.asdict(self)
        for name, default in (("objective", "average"), ("price_weight", 0.0), ("stack", None)):
            if settings[name] == default:
                del settings[name]
        return settings
