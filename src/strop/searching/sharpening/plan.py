"""What a sharpening is asked to do: a frozen value, valid once built."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, get_args

from strop.anatomy import MatrixType, Stack
from strop.errors import UsageError
from strop.searching.fisher import FISHER_TEXTS
from strop.searching.sharpening.spectrum import NEEDS_FISHER, Preconditioner
from strop.statistics import ObjectiveName

STEPS: Mapping[Preconditioner, float] = {"fisher-sign": 0.006, "sign": 0.004, "fisher": 0.002, "none": 0.002}
"""Mean share by which a step changes a singular value, where nothing else is said."""

DRIFT = 0.03
"""Most drift, in nats per token, where nothing else is said."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SharpenPlan:
    """The settings of a sharpening.

    Raises:
        UsageError: a setting is out of its range; the message names it and the range.
    """

    precondition: Preconditioner = "fisher-sign"
    """`fisher-sign`: every singular value moves so far that the base's own text resists all moves alike; `sign`: all move by the
    same share, and nothing has to be known of the base; `fisher`: by the gradient's share of what resists; `none`: by it."""
    step: float | None = None
    """Mean share by which one step changes a singular value; where that does not help, or drifts too far, half of it is tried.
    By default 0.006 for `fisher-sign`, 0.004 for `sign`, 0.002 for the others."""
    steps: int = 8
    """Most steps; each takes a fresh gradient."""
    drift: float | None = DRIFT
    """Most KL(base ‖ edited), in nats per token; None for no bound, as a classifier has none."""
    examples: int = 200
    """How many train examples the gradient is taken over; of select where there is no train."""
    matrix_types: tuple[MatrixType, ...] | None = None
    """Which matrices to sharpen; all by default."""
    layers: tuple[int, ...] | None = None
    """Which layers to sharpen; all by default."""
    stack: Stack | None = None
    """Which list of blocks, of a model that has several; the main one by default."""
    damping: float = 0.1
    """What is added to each Fisher information, as a share of their mean."""
    fisher_texts: int = FISHER_TEXTS
    """How many texts of the base's own the Fisher information is taken over; a classifier's is over `examples`, under labels
    it draws itself."""
    select_limit: int | None = 1000
    """Most select examples to choose by; None for all."""
    test_limit: int | None = None
    """Most test examples to measure the choice on; None for all."""
    objective: ObjectiveName = "average"
    """Which accuracy the choice maximises: of all select examples, or `macro`, the mean over the task's categories."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.precondition not in get_args(Preconditioner):
            raise UsageError(
                f"precondition (--precondition) is one of {', '.join(get_args(Preconditioner))}, not '{self.precondition}'."
            )
        if self.objective not in get_args(ObjectiveName):
            raise UsageError(f"objective is one of {', '.join(get_args(ObjectiveName))}, not '{self.objective}'.")
        if not 0 < self.size <= 0.5:
            raise UsageError(
                f"step (--step) is the share by which a singular value changes, above 0 and at most 0.5, not {self.size:g}."
            )
        if self.drift is not None and not 0 < self.drift < math.inf:
            raise UsageError(f"drift (--drift) is above 0, in nats per token, not {self.drift:g}.")
        if not 0 < self.damping < math.inf:
            raise UsageError(f"damping (--damping) is above 0, not {self.damping:g}.")
        for name in ("steps", "examples", "fisher_texts", "select_limit", "test_limit"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name} is 1 or more, not {value}.")
        for name in ("matrix_types", "layers"):
            if getattr(self, name) is not None and not getattr(self, name):
                raise UsageError(f"{name} is empty; leave it out for the default.")
        if self.precondition not in NEEDS_FISHER:
            for name, default in (("damping", 0.1), ("fisher_texts", FISHER_TEXTS)):
                if getattr(self, name) != default:
                    raise UsageError(
                        f"{name} goes with preconditions fisher-sign and fisher, not with '{self.precondition}'; leave it out."
                    )
        if self.seed < 0:
            raise UsageError(f"seed is 0 or more, not {self.seed}.")

    @property
    def size(self) -> float:
        """Mean share by which the first step changes a singular value."""
        return self.step if self.step is not None else STEPS[self.precondition]

    def to_json(self) -> dict[str, Any]:
        """Return what a run's config.json holds, but for settings that older runs do not know and that change nothing."""
        settings = {**dataclasses.asdict(self), "step": self.size}
        if self.stack is None:
            del settings["stack"]
        return settings
