"""Every trial of a search on disk, as an Optuna study: written the moment it is known, never half."""

import contextlib
import dataclasses
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Generic, TypeVar

import optuna

from strop.errors import RunError
from strop.runs.environment import without_password
from strop.statistics import merit_of

C = TypeVar("C")
Setting = str | int | float


@dataclasses.dataclass(frozen=True)
class CandidateSpace(Generic[C]):
    """How candidates of one kind are spelled as the parameters of a study, and read back."""

    distributions: Mapping[str, optuna.distributions.BaseDistribution]
    spell: Callable[[C], dict[str, Setting]]
    read: Callable[[Mapping[str, Any]], C]


@dataclasses.dataclass(frozen=True)
class Trial(Generic[C]):
    """One candidate and what it scored."""

    round: int
    """Counted from 1: which addition to the recipe was being looked for; 0 is the model before the recipe to begin with."""
    candidate: C | None
    """None is "no edit"."""
    examples: int
    """How many examples it was scored on."""
    accuracy: float | None
    """Share answered right, 0 to 1; None for `perplexity` and for numbers."""
    loss: float
    """Nats per answer token."""
    split: str = "select"
    """Where the examples are from."""
    elapsed_seconds: float = 0.0
    """From the search's beginning to this trial's end, sittings added up."""
    metric: tuple[str, float] | None = None
    """The name and value of the metric a classifier is judged by; None for a language model."""

    @property
    def merit(self) -> tuple[float, float]:
        """What a search maximises; see `merit_of`."""
        return merit_of(self.metric[1] if self.metric is not None else self.accuracy, self.loss)


class TrialBook(Generic[C]):
    """The trials of one search.

    Args:
        storage: an address SQLAlchemy understands (`sqlite:///study.db`, `postgresql://…`); in memory by default.
        name: of the study; a search that goes on finds its trials under it.
        space: of the candidates.

    Raises:
        RunError: the storage cannot be opened.
    """

    def __init__(self, storage: str | None, *, name: str, space: CandidateSpace[C]) -> None:
        self.space = space
        self._distributions: dict[str, optuna.distributions.BaseDistribution] = {
            "round": optuna.distributions.IntDistribution(0, 10_000),
            "split": optuna.distributions.CategoricalDistribution(["train", "select"]),
            "examples": optuna.distributions.IntDistribution(1, 10**9),
            **space.distributions,
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
        self._known: dict[Key, Trial[C]] = {}
        for kept in self._study.get_trials(deepcopy=False):
            trial = self._from_optuna(kept)
            self._known[self._key_of(trial)] = trial

    def find(self, number: int, candidate: C | None, examples: int, *, split: str = "select") -> Trial[C] | None:
        """Return the finished trial of a candidate in round `number`, if there is one."""
        return self._known.get((number, split, examples, self._settings_of(candidate)))

    def add(self, trial: Trial[C]) -> None:
        """Write a finished trial."""
        params: dict[str, Setting] = {"round": trial.round, "split": trial.split, "examples": trial.examples}
        if trial.candidate is not None:
            params |= self.space.spell(trial.candidate)
        self._study.add_trial(
            optuna.trial.create_trial(
                params=dict(params),
                distributions={name: self._distributions[name] for name in params},
                value=trial.merit[0] if (trial.metric or trial.accuracy) is not None else trial.merit[1],
                user_attrs={
                    "accuracy": trial.accuracy,
                    "loss": trial.loss,
                    "elapsed_seconds": trial.elapsed_seconds,
                    **({"metric": list(trial.metric)} if trial.metric is not None else {}),
                },
            )
        )
        self._known[self._key_of(trial)] = trial

    def remember(self, key: str, value: Any) -> None:
        """Keep a value beside the trials."""
        self._study.set_user_attr(key, value)

    def recall(self, key: str) -> Any:
        """Return a value kept earlier, or None."""
        return self._study.user_attrs.get(key)

    @property
    def trials(self) -> tuple[Trial[C], ...]:
        """All finished trials."""
        return tuple(self._known.values())

    def _settings_of(self, candidate: C | None) -> tuple[tuple[str, Setting], ...]:
        return () if candidate is None else tuple(sorted(self.space.spell(candidate).items()))

    def _key_of(self, trial: Trial[C]) -> "Key":
        return (trial.round, trial.split, trial.examples, self._settings_of(trial.candidate))

    def _from_optuna(self, kept: optuna.trial.FrozenTrial) -> Trial[C]:
        settings = {name: value for name, value in kept.params.items() if name in self.space.distributions}
        return Trial(
            round=kept.params["round"],
            candidate=self.space.read(settings) if settings else None,
            examples=kept.params["examples"],
            split=kept.params["split"],
            accuracy=kept.user_attrs["accuracy"],
            loss=kept.user_attrs["loss"],
            elapsed_seconds=kept.user_attrs["elapsed_seconds"],
            metric=(str(kept.user_attrs["metric"][0]), float(kept.user_attrs["metric"][1]))
            if "metric" in kept.user_attrs
            else None,
        )


Key = tuple[int, str, int, tuple[tuple[str, Setting], ...]]


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
