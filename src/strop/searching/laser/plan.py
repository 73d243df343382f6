"""What a search is asked to do: a frozen value, valid once built."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Literal, get_args

from strop.anatomy import MatrixType, Stack
from strop.errors import UsageError
from strop.linalg import Axis, Partition, rank_for_fraction
from strop.statistics import ObjectiveName

Strategy = Literal["gradient", "exhaustive", "race", "data-free"]
Compose = Literal["none", "greedy", "beam", "ordered"]

LASER_RANK_FRACTIONS = (0.9, 0.8, 0.6, 0.4, 0.2, 0.1, 0.05, 0.01, 0.005)
"""The union of the grids in LASER's paper (table 5) and in its repository."""

GREEDY_EDITS = 6
"""Most edits that `greedy` and `beam` add unless they are told otherwise."""

BEAM_WIDTH = 3
"""How many partial compositions `beam` goes on from unless it is told otherwise."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchPlan:
    """The settings of a search for rank reductions.

    Raises:
        UsageError: a setting is out of its range; the message names it and the range.
    """

    strategy: Strategy = "gradient"
    """`gradient` asks one backward pass which few candidates to try, `data-free` the spectra alone; `exhaustive` tries all; `race`
    tries all on a few select examples, and on more only those that a paired test does not rule out."""
    compose: Compose = "none"
    """`none` finds one edit; `greedy` goes on from the edited model until nothing improves, and revises what it took; `beam` goes
    on from the best few at once; `ordered` walks from the last layer down as LASER's paper does, the smallest rank first."""
    matrix_types: tuple[MatrixType, ...] | None = None
    """Which matrices to consider; all by default."""
    layers: tuple[int, ...] | None = None
    """Which layers to consider; all by default."""
    stack: Stack | None = None
    """Which list of blocks, of a model that has several; the main one by default."""
    rank_fractions: tuple[float, ...] | None = None
    """Shares of the rank to try; by default `gradient` tries ranks around the predicted one, `data-free` the one
    that its threshold leaves, the others LASER's grid."""
    subspaces: tuple[int, ...] = (1,)
    """Into how many subspaces matrices are parted, each number tried at every rank fraction with factors of one size."""
    axis: Axis = "output"
    """Which side's features are parted into several subspaces: the matrix's outputs (its rows) or its inputs."""
    partition: Partition = "block"
    """How they are parted: `block`, neighbours together, or `subspace`, each with those that lie near one subspace."""
    max_edits: int | None = None
    """Most interventions that are added; by default 1 without composition, 6 with `greedy` and `beam`, and any number with
    `ordered`."""
    beam: int | None = None
    """How many partial compositions `beam` goes on from, `beam` only; 3 by default."""
    select_limit: int | None = 1000
    """Most select examples to choose by; None for all."""
    test_limit: int | None = None
    """Most test examples to measure the choice on; None for all."""
    gradient_examples: int = 100
    """How many select examples the gradient is taken over, `gradient` only, and candidates are screened on."""
    top_matrices: int = 12
    """How many of the matrices the gradient, or the ratio of signal to noise, ranks highest are tried, where not all are."""
    finalists: int = 8
    """How many candidates the screening leaves to be scored on all select examples, where not all are tried."""
    price_weight: float = 0.0
    """Nats of the task's loss that a nat of drift from the base is worth where the gradient ranks candidates: above 0 by the
    predicted change of the loss + weight · ½ Σ F_i over what is cut, F the Fisher information of the base's own text."""
    objective: ObjectiveName = "average"
    """Which accuracy the choice maximises: of all select examples, or `macro`, the mean over the task's categories."""
    seed: int = 0

    def __post_init__(self) -> None:
        for name, allowed in (
            ("strategy", get_args(Strategy)),
            ("compose", get_args(Compose)),
            ("objective", get_args(ObjectiveName)),
            ("axis", get_args(Axis)),
            ("partition", get_args(Partition)),
        ):
            if getattr(self, name) not in allowed:
                raise UsageError(f"{name} is one of {', '.join(allowed)}, not '{getattr(self, name)}'.")
        counts = ("max_edits", "beam", "select_limit", "test_limit", "gradient_examples", "top_matrices", "finalists")
        for name in counts:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name} is 1 or more, not {value}.")
        if self.compose == "none" and self.edit_limit != 1:
            raise UsageError(
                f"{self.max_edits} edits (max_edits, --max-edits) need compose 'greedy' (--compose greedy); "
                "a search without it finds one edit."
            )
        if self.beam is not None and self.compose != "beam":
            raise UsageError(
                f"beam (--beam {self.beam}) goes with compose 'beam' (--compose beam), not '{self.compose}'."
            )
        if not 0 <= self.price_weight < math.inf:
            raise UsageError(f"price_weight is 0 or more, not {self.price_weight}.")
        if self.price_weight and self.strategy != "gradient":
            raise UsageError(
                f"price_weight goes with strategy 'gradient': '{self.strategy}' asks no gradient that it could be added to."
            )
        if self.seed < 0:
            raise UsageError(f"seed is 0 or more, not {self.seed}.")
        self._check_subspaces()
        for name in ("matrix_types", "layers", "rank_fractions"):
            if getattr(self, name) is not None and not getattr(self, name):
                raise UsageError(f"{name} is empty; leave it out to consider all.")
        for fraction in self.rank_fractions or ():
            rank_for_fraction(fraction, (1, 1))

    def _check_subspaces(self) -> None:
        if not self.subspaces:
            raise UsageError("subspaces is empty; leave it out to part nothing.")
        for count in self.subspaces:
            if type(count) is not int or count < 1:
                raise UsageError(
                    f"subspaces are whole numbers, 1 or more, such as 1,2,4,8 (--subspaces), not {count!r}."
                )
        if set(self.subspaces) == {1} and (self.axis, self.partition) != ("output", "block"):
            raise UsageError(
                "axis and partition say how features are parted into several subspaces: give subspaces as well (--subspaces 1,2,4)."
            )

    @classmethod
    def from_json(cls, settings: Mapping[str, Any]) -> "SearchPlan":
        """Return the plan that `to_json` wrote, after it went through a file or not.

        Args:
            settings: as it was written.

        >>> plan = SearchPlan(matrix_types=(MatrixType.UP,), layers=(1, 2))
        >>> SearchPlan.from_json(plan.to_json()) == dataclasses.replace(plan, max_edits=1)
        True
        """
        read: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()
        }
        if read.get("matrix_types") is not None:
            read["matrix_types"] = tuple(map(MatrixType, read["matrix_types"]))
        if read.get("stack") is not None:
            read["stack"] = Stack(read["stack"])
        return cls(**read)

    @property
    def edit_limit(self) -> int | None:
        """Most interventions that are added, the default worked out; None for any number."""
        if self.max_edits is not None:
            return self.max_edits
        return {"none": 1, "ordered": None}.get(self.compose, GREEDY_EDITS)

    @property
    def moves_ranks(self) -> bool:
        """Whether the ranks of edits are moved up and down once they are found; a race parts its budget among edits alone."""
        return self.compose != "none" and self.strategy != "race"

    @property
    def beam_width(self) -> int:
        """How many partial compositions `beam` goes on from, the default worked out."""
        return self.beam if self.beam is not None else BEAM_WIDTH

    @property
    def needs_task(self) -> bool:
        """Whether somebody has to say what to be good at: without a task, data-free goes by what the model itself writes."""
        return self.strategy != "data-free"

    def to_json(self) -> dict[str, Any]:
        """Return what a run's config.json holds, but for settings that older runs do not know and that change nothing."""
        settings = {**dataclasses.asdict(self), "max_edits": self.edit_limit}
        for name in ("objective", "price_weight", "stack", "subspaces", "axis", "partition", "beam"):
            if settings[name] == getattr(type(self), name):
                del settings[name]
        return settings
