"""Every trial of a search on disk, as an Optuna study: written the moment it is known, never half."""

import contextlib
import dataclasses
import weakref
from collections.abc import Iterator
from typing import Any

import optuna

from strop.anatomy import MatrixType, WeightSite
from strop.errors import RunError
from strop.interventions import RankReduction
from strop.runs.environment import without_password
from strop.tasks import merit_of

NO_EDIT = "none"


@dataclasses.dataclass(frozen=True)
class Trial:
    """One candidate and what it scored on the select split."""

    round: int
    """Counted from 1: which edit of the recipe was being looked for."""
    intervention: RankReduction | None
    """None is "no edit"."""
    rank: int
    """Components kept; 0 for "no edit"."""
    examples: int
    """How many select examples it was scored on."""
    accuracy: float | None
    """Share answered right, 0 to 1; None for `perplexity`."""
    loss: float
    """Nats per answer token."""
    elapsed_seconds: float = 0.0
    """From the search's beginning to this trial's end, sittings added up."""

    @property
    def merit(self) -> tuple[float, float]:
        """What a search maximises; see `merit_of`."""
        return merit_of(self.accuracy, self.loss)

    @property
    def key(self) -> tuple[int, WeightSite | None, int, int]:
        """What makes two trials the same."""
        return (self.round, self.intervention.site if self.intervention else None, self.rank, self.examples)


class TrialBook:
    """The trials of one search.

    Args:
        storage: an address SQLAlchemy understands (`sqlite:///study.db`, `postgresql://…`); in memory by default.
        name: of the study; a search that goes on finds its trials under it.
        layer_count: of the model.
        largest_rank: any matrix of the model can have.

    Raises:
        RunError: the storage cannot be opened.
    """

    def __init__(self, storage: str | None, *, name: str, layer_count: int, largest_rank: int) -> None:
        self._distributions: dict[str, optuna.distributions.BaseDistribution] = {
            "round": optuna.distributions.IntDistribution(1, 10_000),
            "matrix_type": optuna.distributions.CategoricalDistribution([NO_EDIT, *map(str, MatrixType)]),
            "layer": optuna.distributions.IntDistribution(0, layer_count - 1),
            "rank": optuna.distributions.IntDistribution(0, largest_rank),
            "examples": optuna.distributions.IntDistribution(1, 10**9),
        }
        try:
            with _quiet_optuna():
                database = optuna.storages.RDBStorage(storage) if storage is not None else None
                self._study = optuna.create_study(
                    storage=database, study_name=name, direction="maximize", load_if_exists=True
                )
        except Exception as error:  # SQLAlchemy and its drivers each raise trees of their own
            reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
            raise RunError(
                f"The study storage {without_password(str(storage))} cannot be opened: {without_password(reason)}; see to "
                "its address, its server or its disk, then repeat the command with --resume."
            ) from error
        if database is not None:
            weakref.finalize(self, _hang_up, database)
        self._known = {trial.key: trial for trial in map(_from_optuna, self._study.get_trials(deepcopy=False))}

    def find(self, number: int, intervention: RankReduction | None, rank: int, examples: int) -> Trial | None:
        """Return the finished trial of a candidate in round `number`, if there is one."""
        return self._known.get((number, intervention.site if intervention else None, rank, examples))

    def add(self, trial: Trial) -> None:
        """Write a finished trial."""
        edit = trial.intervention
        self._study.add_trial(
            optuna.trial.create_trial(
                params={
                    "round": trial.round,
                    "matrix_type": str(edit.site.matrix_type) if edit else NO_EDIT,
                    "layer": edit.site.layer if edit else 0,
                    "rank": trial.rank,
                    "examples": trial.examples,
                },
                distributions=self._distributions,
                value=trial.merit[0] if trial.accuracy is not None else trial.merit[1],
                user_attrs={
                    "accuracy": trial.accuracy,
                    "loss": trial.loss,
                    "rank_fraction": edit.rank_fraction if edit else None,
                    "elapsed_seconds": trial.elapsed_seconds,
                },
            )
        )
        self._known[trial.key] = trial

    def remember(self, key: str, value: Any) -> None:
        """Keep a value beside the trials."""
        self._study.set_user_attr(key, value)

    def recall(self, key: str) -> Any:
        """Return a value kept earlier, or None."""
        return self._study.user_attrs.get(key)

    @property
    def trials(self) -> tuple[Trial, ...]:
        """All finished trials."""
        return tuple(self._known.values())


@contextlib.contextmanager
def _quiet_optuna() -> Iterator[None]:
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)


def _hang_up(database: optuna.storages.RDBStorage) -> None:
    database.remove_session()
    database.engine.dispose()


def _from_optuna(trial: optuna.trial.FrozenTrial) -> Trial:
    params, attrs = trial.params, trial.user_attrs
    edit = None
    if params["matrix_type"] != NO_EDIT:
        site = WeightSite(params["layer"], MatrixType(params["matrix_type"]))
        edit = RankReduction(site, attrs["rank_fraction"])
    return Trial(
        round=params["round"],
        intervention=edit,
        rank=params["rank"],
        examples=params["examples"],
        accuracy=attrs["accuracy"],
        loss=attrs["loss"],
        elapsed_seconds=attrs["elapsed_seconds"],
    )
