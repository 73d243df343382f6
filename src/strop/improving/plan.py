"""The settings of an improvement, as one value that is valid once built."""

import dataclasses
import itertools
import math
from typing import Any, Literal, get_args

from strop.errors import UsageError
from strop.statistics import ObjectiveName

FEWEST_TO_JUDGE_BY = 50
"""Select examples of a round, where there are so many: with fewer chance says who goes on."""
FEWEST_TO_LEARN_FROM = 200
"""Examples that a round gives to learn from at least, where there are so many."""

Preset = Literal["quick", "good", "best"]
FamilyName = Literal["sharpen", "laser", "prune", "train", "prompt"]

FAMILIES: tuple[FamilyName, ...] = get_args(FamilyName)


@dataclasses.dataclass(frozen=True)
class Round:
    """One round of the halving: what share of the data everyone in it gets, and of the time all of them together."""

    data: float
    """Of the select examples, and of what is learned from."""
    time: float
    """Of what there is to choose in."""


@dataclasses.dataclass(frozen=True)
class Effort:
    """What a preset stands for."""

    seconds: float
    """All of it: loading, choosing, and the measurement on held-out examples."""
    select_examples: int
    """Most of them, in the last round."""
    rounds: tuple[Round, ...]
    """Each keeps the better half; what their times leave is for what builds on the best."""
    contenders: tuple[str, ...]
    """Who is in the first round, by name; where time is short, those who come first have it."""

    @property
    def builds(self) -> bool:
        """Whether the rounds leave time for what builds on the best."""
        return sum(own.time for own in self.rounds) < 0.99


_QUICK = ("examples in the prompt", "sharpening by signs", "LASER", "spectrum")
_GOOD = (
    "examples in the prompt",
    "sharpening",
    "spectrum",
    "LoReFT",
    "LASER",
    "eigenpruning",
    "LoRA",
    "bias",
    "LASER, composed",
)

EFFORTS: dict[Preset, Effort] = {
    "quick": Effort(300.0, 200, (Round(0.5, 0.4), Round(1.0, 0.35)), _QUICK),
    "good": Effort(1800.0, 400, (Round(0.25, 0.3), Round(0.5, 0.25), Round(1.0, 0.3)), _GOOD),
    "best": Effort(
        4 * 3600.0,
        1000,
        (Round(0.25, 0.3), Round(0.5, 0.25), Round(1.0, 0.2)),
        (*_GOOD, "sharpening by signs", "DiReFT", "spectrum, higher rate", "LoReFT, rank 2"),
    ),
}
"""What each preset stands for."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImprovePlan:
    """How an improvement is looked for.

    Raises:
        UsageError: a setting is out of its range.

    >>> ImprovePlan(preset="good").effort.select_examples
    400
    """

    preset: Preset = "quick"
    """How much is tried: about five minutes, half an hour, four hours, unless a budget says otherwise."""
    families: tuple[FamilyName, ...] = FAMILIES
    """Which kinds of candidates are in the running, beside the model as it is."""
    select_limit: int | None = None
    """Most select examples to choose by; what the preset says by default."""
    test_limit: int | None = None
    """Most test examples to measure the choice on; by default as many as a third of the budget measures."""
    objective: ObjectiveName = "average"
    """Which accuracy the choice maximises: of all select examples, or `macro`, the mean over the task's categories."""
    drift: float | None = 0.05
    """Most KL(base ‖ edited), in nats per token, of a model that writes text; None for no bound."""
    seed: int = 0
    """Of samples, initial edits and the bootstrap."""

    def __post_init__(self) -> None:
        for name, allowed in (("preset", get_args(Preset)), ("objective", get_args(ObjectiveName))):
            if getattr(self, name) not in allowed:
                raise UsageError(f"{name} is one of {', '.join(allowed)}, not '{getattr(self, name)}'.")
        for family in self.families:
            if family not in FAMILIES:
                raise UsageError(f"families (--families) are among {', '.join(FAMILIES)}, not '{family}'.")
        if not self.families:
            raise UsageError("families (--families) is empty; leave it out for all.")
        for name in ("select_limit", "test_limit"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name} is 1 or more, not {value}.")
        if self.drift is not None and not 0 < self.drift < math.inf:
            raise UsageError(f"drift is above 0, in nats per token, not {self.drift:g}.")
        if self.seed < 0:
            raise UsageError(f"seed is 0 or more, not {self.seed}.")

    @property
    def effort(self) -> Effort:
        """What the preset stands for."""
        return EFFORTS[self.preset]

    @property
    def next_preset(self) -> Preset | None:
        """The preset that tries more; None for the last one."""
        following = dict(itertools.pairwise(get_args(Preset)))
        found: Preset | None = following.get(self.preset)
        return found

    def counts(self, available: int) -> tuple[int, ...]:
        """Return how many select examples each round has, of those there are.

        Args:
            available: of the task's select split.
        """
        most = min(self.select_limit or self.effort.select_examples, available)
        return tuple(max(min(most, FEWEST_TO_JUDGE_BY), round(own.data * most)) for own in self.effort.rounds)

    def to_json(self) -> dict[str, Any]:
        """Return all settings as config.json holds them."""
        return {**dataclasses.asdict(self), "families": list(self.families)}
