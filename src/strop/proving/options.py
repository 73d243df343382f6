"""What every run takes, whatever its method."""

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, get_args

from strop.anatomy import Family
from strop.errors import UsageError
from strop.linalg import DecompositionCache
from strop.progress import Progress, shown_here
from strop.proving.budget import Budget
from strop.proving.drift import DriftText
from strop.proving.guards import Guard
from strop.recipe import Recipe
from strop.runs import moment_of
from strop.scoring import Resources, dated, telling_once, using

Executor = Literal["processes", "ray"]
"""Who starts a run's workers."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class RunOptions:
    """Where a run begins, what it may spend, and where it writes: the same for `search`, `prune` and `train`.

    Raises:
        UsageError: there is nothing to resume.

    >>> RunOptions(budget=Budget(seconds=60)).out is None
    True
    """

    out: str | Path | None = None
    """The run folder; nothing is written by default."""
    after: Recipe | None = None
    """A recipe to begin with; the one that comes out holds its interventions first."""
    guards: Sequence[Guard] = ()
    """What a choice may not harm by more than a bound; see `Guard`."""
    drift_text: DriftText = dataclasses.field(default_factory=DriftText)
    """What the choice's drift from the base is measured on; text the base writes itself by default."""
    budget: Budget = dataclasses.field(default_factory=Budget)
    """What the choice may spend; without limits by default."""
    spent_seconds: float = 0.0
    """What this sitting has taken before the run was asked for, such as loading the model: part of what it cost."""
    storage: str | None = None
    """An address SQLAlchemy understands, for the trials; study.db in the run folder by default."""
    resume: bool = False
    """Go on with an interrupted run in `out`; finished trials are not repeated and the answer is the same."""
    family: Family | None = None
    """The spelling of an architecture Strop does not know."""
    with_factors: bool = False
    """Put low-rank factors into the recipe, so that applying it decomposes nothing."""
    decompositions: DecompositionCache | None = None
    """The cache of decompositions; the one on disk by default."""
    resources: Resources | None = None
    """What batches and what is kept in memory may take; what suits the model's device by default."""
    progress: Progress = dataclasses.field(default_factory=shown_here)
    """Told how far it is: bars where a person watches, in a notebook or at a terminal; `strop.progress.SILENT` shows nothing."""
    workers: int = 1
    """How many processes score a search's candidates, this one among them; each loads the model by its name or folder."""
    executor: Executor = "processes"
    """Where the others are: `processes` of this machine, or actors of `ray`."""
    rivals: bool = True
    """Measure, once the choice is made, what a user would do instead; see `strop.statistics.Rivals`."""

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise UsageError(f"workers is 1 or more, not {self.workers}.")
        if self.executor not in get_args(Executor):
            raise UsageError(f"executor is one of {', '.join(get_args(Executor))}, not '{self.executor}'.")
        if self.workers > 1 and self.out is None and self.storage is None:
            raise UsageError(
                "Several workers meet in a study: name its folder with out=, or its database with storage=."
            )
        if self.out is None and self.resume:
            raise UsageError("Only a run with a folder can be resumed; name it with out=.")

    @property
    def folder(self) -> Path | None:
        """The run folder as a path."""
        return Path(self.out) if self.out is not None else None

    @contextlib.contextmanager
    def in_force(self) -> Iterator[None]:
        """Let the resources hold for a block, and the moment that chat templates took for now when the run began.

        What there is to say of the task's prompts is said once.
        """
        begun = moment_of(self.folder) if self.resume and self.folder is not None else None
        with using(self.resources), telling_once(), dated(begun):
            yield
