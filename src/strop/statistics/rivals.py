"""What a user would do instead of an edit, and what a model answers most, as a result file holds them."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from strop.statistics.comparison import Comparison

Answer = str | int
"""A text; or a choice by its place, counted from 1, where each example has choices of its own."""

TIMES_TOO_OFTEN = 1.5
"""An answer that is said so many times as often as it is right is said for its own sake."""
LEAST_EXCESS = 0.1
"""By how much, of all examples, it is said more often than it is right at least, and than the base says it."""
LEAST_SHARE = 0.3
"""Of all examples on which a model that has collapsed to an answer says it."""


@dataclasses.dataclass(frozen=True)
class Rival:
    """What a user would do instead, on the examples the edited model was measured on, or on a sample of them."""

    accuracy: float | None
    """Share answered right, 0 to 1."""
    loss: float | None
    """Mean over the examples, in nats per answer token; None for a constant answer."""
    count: int
    """How many examples."""
    comparison: Comparison
    """The edited model against the rival, on the same examples."""
    answer: Answer | None = None
    """What is always answered; only for a constant answer."""
    tokens_per_request: float | None = None
    """Mean length of its prompts; None for a constant answer."""
    edited_tokens_per_request: float | None = None
    """Mean length of the prompts the edited model was given."""
    metric: tuple[str, float] | None = None
    """The name and value of the metric a classifier is judged by; None for a language model."""
    macro: float | None = None
    """Mean over the task's categories of the accuracy in each; None where it has none."""

    @property
    def is_as_good(self) -> bool:
        """Whether the edited model is not better than it beyond the interval."""
        return self.comparison.ci95[0] <= 0

    @property
    def is_better(self) -> bool:
        """Whether it is better than the edited model beyond the interval."""
        return self.comparison.ci95[1] < 0

    @property
    def times_the_tokens(self) -> float | None:
        """How many times as long its requests are; None for a constant answer."""
        if self.tokens_per_request is None or not self.edited_tokens_per_request:
            return None
        return self.tokens_per_request / self.edited_tokens_per_request

    def to_json(self) -> dict[str, Any]:
        """Return what a result file holds; what does not belong to such a rival is left out."""
        content: dict[str, Any] = {"accuracy": self.accuracy, "loss": self.loss, "count": self.count}
        if self.metric is not None:
            content |= {"metric": self.metric[0], self.metric[0]: self.metric[1]}
        optional = ("macro", "answer", "tokens_per_request", "edited_tokens_per_request")
        content |= {name: own for name in optional if (own := getattr(self, name)) is not None}
        return {**content, "comparison": self.comparison.to_json()}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Rival":
        """Return the rival a result file holds.

        Raises:
            KeyError: a figure is missing.
        """
        name = content.get("metric")
        return cls(
            accuracy=content["accuracy"],
            loss=content["loss"],
            count=content["count"],
            comparison=Comparison.from_json(content["comparison"]),
            answer=content.get("answer"),
            tokens_per_request=content.get("tokens_per_request"),
            edited_tokens_per_request=content.get("edited_tokens_per_request"),
            metric=(name, content[name]) if name is not None else None,
            macro=content.get("macro"),
        )


@dataclasses.dataclass(frozen=True)
class MostSaid:
    """The answer a model gives most often.

    >>> MostSaid("true", share=0.97, right_share=0.62, base_share=0.3).is_collapse
    True
    """

    answer: Answer
    """The text; where answers of several tokens are compared token by token, their first."""
    share: float
    """Of the examples on which the model gives it, 0 to 1."""
    right_share: float
    """Of the examples whose right answer it is, whoever gives it."""
    base_share: float | None = None
    """Of the examples on which the base gives it; only for the edited model."""

    @property
    def is_collapse(self) -> bool:
        """Whether the edited model gives it for its own sake.

        It gives it on three of ten examples or more; on a tenth of all more than the base does; and far more often than it is
        right: 1.5 times, or half of the way to always, and on a tenth of all examples too many at least.
        """
        excess = self.share - self.right_share
        far = self.share >= TIMES_TOO_OFTEN * self.right_share or excess >= (1 - self.right_share) / 2
        more = self.base_share is not None and self.share - self.base_share >= LEAST_EXCESS
        return self.share >= LEAST_SHARE and more and far and excess >= LEAST_EXCESS

    def to_json(self) -> dict[str, Any]:
        """Return what a result file holds."""
        return {name: own for name, own in dataclasses.asdict(self).items() if own is not None}


@dataclasses.dataclass(frozen=True)
class Rivals:
    """Everything that was measured beside the edited model, by name: `constant`, `shots_1`, `shots_5`."""

    measured: Mapping[str, Rival] = dataclasses.field(default_factory=dict)
    skipped: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """name → why it was not measured."""
    answers: Mapping[str, MostSaid] = dataclasses.field(default_factory=dict)
    """`base` and `edited` → the answer each gives most often."""

    def __bool__(self) -> bool:
        return bool(self.measured or self.skipped or self.answers)

    @property
    def as_good(self) -> tuple[str, ...]:
        """The names of those that the edited model is not surely better than."""
        return tuple(name for name, rival in self.measured.items() if rival.is_as_good)

    @property
    def collapse(self) -> MostSaid | None:
        """The answer the edited model has fallen to; None where it has not."""
        edited = self.answers.get("edited")
        return edited if edited is not None and edited.is_collapse else None

    def to_json(self) -> dict[str, Any]:
        """Return what a result file holds."""
        content: dict[str, Any] = {name: rival.to_json() for name, rival in self.measured.items()}
        content |= {name: {"skipped": reason} for name, reason in self.skipped.items()}
        if self.answers:
            content["answers"] = {name: said.to_json() for name, said in self.answers.items()}
        return content

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Rivals":
        """Return the rivals a result file holds; none of an empty one.

        Raises:
            KeyError: a figure is missing.
            TypeError: a figure is unknown.
        """
        own = {name: entry for name, entry in content.items() if name != "answers"}
        return cls(
            measured={name: Rival.from_json(entry) for name, entry in own.items() if "skipped" not in entry},
            skipped={name: entry["skipped"] for name, entry in own.items() if "skipped" in entry},
            answers={name: MostSaid(**entry) for name, entry in content.get("answers", {}).items()},
        )
