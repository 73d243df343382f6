"""What a trial is: which candidate was scored on what, and what it scored."""

import dataclasses
import functools
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Generic, TypeVar

import optuna

from strop.errors import UsageError
from strop.proving.per_example import PerExample
from strop.statistics import Figures, Merit, ObjectiveName

C = TypeVar("C")
Setting = str | int | float


@dataclasses.dataclass(frozen=True, eq=False)
class TrialKey:
    """What sets one trial apart from all others of a study; keys of the same text are equal.

    Raises:
        UsageError: a count is out of range, or a setting is no finite number and no text.

    >>> key = TrialKey("rank_reduction", "search", 1, "select", 24, {"rank_fraction": 1.0, "layer": 2})
    >>> key.text
    '{"method":"rank_reduction","stage":"search","round":1,"split":"select","examples":24,"candidate":{"layer":2,"rank_fraction":1}}'
    >>> TrialKey.read(key.text) == key
    True
    """

    method: str
    """Which kind of candidate it is of."""
    stage: str
    """What it was scored for, such as screening or the final choice."""
    round: int
    """Counted from 1: which addition to the recipe was being looked for; 0 is the model before the recipe to begin with."""
    split: str
    """Where the examples are from."""
    examples: int
    """How many examples it was scored on."""
    candidate: Mapping[str, Setting] = dataclasses.field(default_factory=dict)
    """The candidate's settings by name; none is "no edit"."""
    below: Sequence[Mapping[str, Setting]] = ()
    """The settings of the candidates it was tried on top of, in an order that says nothing; kept in the one they are written in."""

    def __post_init__(self) -> None:
        if self.round < 0 or self.examples < 1:
            raise UsageError(
                f"A trial is of round 0 or later and on 1 example or more: round {self.round}, {self.examples} examples."
            )
        object.__setattr__(self, "candidate", _checked(self.candidate))
        below = sorted((_checked(settings) for settings in self.below), key=_spelled)
        object.__setattr__(self, "below", tuple(below))

    @functools.cached_property
    def text(self) -> str:
        """The one way to write it: JSON, settings in alphabetical order, whole numbers without a point."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        del fields["candidate"], fields["below"]
        if self.below:
            fields["below"] = [_whole(settings) for settings in self.below]
        return _json({**fields, "candidate": _whole(self.candidate)})

    def other_orders(self) -> Iterator["TrialKey"]:
        """Yield the keys under which the same model is reached otherwise: with each candidate below as the one that came last.

        >>> key = TrialKey("cut", "search", 2, "select", 24, {"layer": 2}, [{"layer": 1}])
        >>> [(dict(other.candidate), [dict(below) for below in other.below]) for other in key.other_orders()]
        [({'layer': 1}, [{'layer': 2}])]
        """
        for index, last in enumerate(self.below):
            below = (*self.below[:index], self.candidate, *self.below[index + 1 :])
            yield dataclasses.replace(self, candidate=last, below=below)

    @property
    def alike(self) -> str:
        """How the texts of all keys begin that differ from this one in the candidate alone."""
        return self.text.partition('"candidate":')[0]

    @classmethod
    def read(cls, text: str) -> "TrialKey":
        """Return the key of a text.

        Args:
            text: as `text` wrote it.
        """
        key = cls(**json.loads(text))
        vars(key)["text"] = text  # a worker that joins reads thousands of them
        return key

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TrialKey) and self.text == other.text

    def __hash__(self) -> int:
        return hash(self.text)

    def __reduce__(self) -> tuple[Callable[[str], "TrialKey"], tuple[str]]:
        return TrialKey.read, (self.text,)  # a mapping proxy can be neither copied nor sent to another process


@dataclasses.dataclass(frozen=True)
class Trial:
    """What a candidate scored."""

    key: TrialKey
    accuracy: float | None
    """Share answered right, 0 to 1; None for `perplexity` and for numbers."""
    loss: float
    """Nats per answer token."""
    metric: tuple[str, float] | None = None
    """The name and value of the metric a classifier is judged by; None for a language model."""
    elapsed_seconds: float = 0.0
    """From the run's beginning to this trial's end, sittings added up."""
    macro: float | None = None
    """Mean over the task's categories of the accuracy in each, 0 to 1; None where it has none."""
    objective: ObjectiveName = "average"
    """Which accuracy the run maximises."""
    evaluations: float = 1.0
    """What it cost, in passes over all examples the choice is made by: less where it was scored on the rest of a share only."""
    each: PerExample | None = None
    """What every example scored, where trials are to be paired."""

    @classmethod
    def of(
        cls,
        key: TrialKey,
        figures: Figures,
        *,
        elapsed_seconds: float = 0.0,
        objective: ObjectiveName = "average",
        evaluations: float = 1.0,
        each: PerExample | None = None,
    ) -> "Trial":
        """Return the trial of a key that scored these figures.

        Args:
            key: of the trial.
            figures: of the candidate.
            elapsed_seconds: from the run's beginning, sittings added up.
            objective: which accuracy the run maximises.
            evaluations: what it cost, in passes over all examples the choice is made by.
            each: what every example scored, where that is kept.
        """
        return cls(
            key,
            figures.accuracy,
            figures.loss,
            figures.metric,
            elapsed_seconds,
            figures.macro,
            objective,
            evaluations,
            each,
        )

    @property
    def figures(self) -> Figures:
        """What a result file holds of it."""
        return Figures(self.accuracy, self.loss, self.key.examples, metric=self.metric, macro=self.macro)

    @property
    def merit(self) -> Merit:
        """What is maximised; see `Figures.merit_by`."""
        return self.figures.merit_by(self.objective)

    def scores(self) -> dict[str, Any]:
        """Return all but the key as JSON can hold it; what a trial has not, or as every other has it, is left out."""
        spread: dict[str, Any] = {} if self.macro is None else {"macro": float(self.macro)}
        spread |= {} if self.objective == "average" else {"objective": self.objective}
        spread |= {} if self.evaluations == 1 else {"evaluations": float(self.evaluations)}
        spread |= {} if self.each is None else {"each": self.each.to_json()}
        return {
            "accuracy": None if self.accuracy is None else float(self.accuracy),
            "loss": float(self.loss),
            "metric": None if self.metric is None else [self.metric[0], float(self.metric[1])],
            "elapsed_seconds": float(self.elapsed_seconds),
            **spread,
        }

    @classmethod
    def read(cls, key: TrialKey, scores: Mapping[str, Any]) -> "Trial":
        """Return the trial of a key and what `scores` returned.

        Args:
            key: of the trial.
            scores: its figures by name.
        """
        metric = scores["metric"]
        return cls(
            key=key,
            accuracy=scores["accuracy"],
            loss=scores["loss"],
            metric=None if metric is None else (str(metric[0]), float(metric[1])),
            elapsed_seconds=scores["elapsed_seconds"],
            macro=scores.get("macro"),
            objective=scores.get("objective", "average"),
            evaluations=scores.get("evaluations", 1.0),
            each=PerExample.from_json(scores["each"]) if "each" in scores else None,
        )


@dataclasses.dataclass(frozen=True)
class CandidateSpace(Generic[C]):
    """How the candidates of one method are spelled as the parameters of a study, and read back.

    >>> from optuna.distributions import IntDistribution
    >>> layers = CandidateSpace("cut", {"layer": IntDistribution(0, 3)}, lambda layer: {"layer": layer}, lambda s: s["layer"])
    >>> key = layers.key(2, stage="search", round=1, split="select", examples=24)
    >>> layers.parameters(key), layers.candidate(key)
    ({'cut.layer': 2}, 2)
    """

    method: str
    """Its name, which begins the names of its parameters, so that those of two methods never clash."""
    distributions: Mapping[str, optuna.distributions.BaseDistribution]
    """What each setting may be."""
    spell: Callable[[C], Mapping[str, Setting]]
    """Returns a candidate's settings."""
    read: Callable[[Mapping[str, Any]], C]
    """Returns the candidate of such settings."""

    def key(
        self, candidate: C | None, *, stage: str, round: int, split: str, examples: int, below: Sequence[C] = ()
    ) -> TrialKey:
        """Return the key of a candidate's trial.

        Args:
            candidate: to be scored; None is "no edit".
            stage: what for.
            round: which addition to the recipe is being looked for.
            split: where the examples are from.
            examples: how many.
            below: the candidates it is tried on top of.
        """
        settings = {} if candidate is None else self.spell(candidate)
        return TrialKey(self.method, stage, round, split, examples, settings, [self.spell(each) for each in below])

    def candidate(self, key: TrialKey) -> C | None:
        """Return the candidate of a key; None is "no edit".

        Args:
            key: of this method.
        """
        if not key.candidate:
            return None
        settings = {}
        for name, value in key.candidate.items():  # a whole number may be a float's
            distribution = self.distributions[name]
            settings[name] = distribution.to_external_repr(distribution.to_internal_repr(value))
        return self.read(settings)

    def parameters(self, key: TrialKey) -> dict[str, Setting]:
        """Return a key's settings as a study names them.

        Args:
            key: of this method.
        """
        return {f"{self.method}.{name}": value for name, value in key.candidate.items()}

    def parameter_distributions(self, key: TrialKey) -> dict[str, optuna.distributions.BaseDistribution]:
        """Return what each of a key's parameters may be.

        Args:
            key: of this method.

        Raises:
            UsageError: a setting is none of this method's.
        """
        unknown = sorted(set(key.candidate) - set(self.distributions))
        if unknown:
            raise UsageError(
                f"The method {self.method} has no setting {unknown[0]!r}: it has {', '.join(sorted(self.distributions))}."
            )
        return {f"{self.method}.{name}": self.distributions[name] for name in key.candidate}


def _checked(settings: Mapping[str, Setting]) -> Mapping[str, Setting]:
    """Return settings in alphabetical order that nobody can change."""
    for name, value in settings.items():
        number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        if not number and not isinstance(value, str):
            raise UsageError(f"The setting {name} of a candidate must be text or a finite number: {value!r}.")
    return MappingProxyType(dict(sorted(settings.items())))


def _whole(settings: Mapping[str, Setting]) -> dict[str, Setting]:
    return {
        name: int(value) if isinstance(value, float) and value.is_integer() else value
        for name, value in settings.items()
    }


def _spelled(settings: Mapping[str, Setting]) -> str:
    return _json(_whole(settings))


def _json(content: object) -> str:
    return json.dumps(content, ensure_ascii=False, separators=(",", ":"))
