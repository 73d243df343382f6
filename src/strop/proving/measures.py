"""What is measured of a model besides its score: a value with a name and a unit."""

import dataclasses
from pathlib import Path
from typing import Literal, Protocol

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from strop.anatomy import Anatomy
from strop.errors import UsageError
from strop.scoring import scorer_of, text_scorer
from strop.tasks import Task
from strop.tasks.plain_text import digest_of, read_text, refuse_blank

BoundUnit = Literal["share", "points", "nats"]
"""In what a harm is counted: a share of the base's figure, the difference of two fractions, or nats per token."""


@dataclasses.dataclass(frozen=True, eq=False)
class Base:
    """A model as it is before any edit, for measures to be made ready on."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    anatomy: Anatomy
    fingerprint: str
    """Of its weights: under it, what the base alone says can be kept."""


class Reader(Protocol):
    """A measure made ready for one model."""

    def __call__(self) -> float:
        """Return the figure of the model as it stands."""
        ...


class Measure(Protocol):
    """Something a choice may harm. A new one is one class with these members.

    One that is known of the base by definition, and need not be read, says so in a property `base_figure`.
    """

    @property
    def name(self) -> str:
        """What people call it."""
        ...

    @property
    def unit(self) -> str:
        """Of its figure."""
        ...

    @property
    def bound_unit(self) -> BoundUnit:
        """Of its harm."""
        ...

    @property
    def fingerprint(self) -> str:
        """What tells it from another measure, its data included."""
        ...

    def harm(self, base: float, edited: float) -> float:
        """Return by how much the edited model is worse; negative where it is better."""
        ...

    def reader(self, base: Base) -> Reader:
        """Make it ready for a model, once; its reader is called as often as the model's edits change.

        Raises:
            UsageError: it cannot be measured of such a model.
        """
        ...


@dataclasses.dataclass(frozen=True, eq=False)
class TextPerplexity:
    """Perplexity of a text: exp of the mean −log p of a token; the harm is its growth, PPL(edited) / PPL(base) − 1.

    The text is read in windows; the first half of each counts as a prompt, so that edits limited to prompt positions are
    felt, and the second half is scored.

    Raises:
        UsageError: the text is blank.

    >>> TextPerplexity("notes.txt", "Some words of prose.").harm(20.0, 21.0)
    0.050000000000000044
    """

    name: str
    text: str

    def __post_init__(self) -> None:
        refuse_blank(self.text, called=f"The guard's text {self.name}")

    @classmethod
    def read(cls, path: Path) -> "TextPerplexity":
        """Read the text from a file.

        Raises:
            UsageError: there is no such file, or it is not UTF-8 text.
        """
        return cls(path.name, read_text(path, called=f"The guard's text {path}"))

    @property
    def unit(self) -> str:
        """Perplexity has no unit of its own."""
        return "perplexity"

    @property
    def bound_unit(self) -> BoundUnit:
        """The harm is a share of the base's figure."""
        return "share"

    @property
    def fingerprint(self) -> str:
        """Of the text."""
        return f"text {digest_of(self.text)}"

    def harm(self, base: float, edited: float) -> float:
        """Return PPL(edited) / PPL(base) − 1."""
        return edited / base - 1

    def reader(self, base: Base) -> Reader:
        """Encode the text once.

        Raises:
            UsageError: the model predicts no tokens, or the text is too short for one window.
        """
        scorer = text_scorer(base.model, base.tokenizer, self.text, name=self.name, anatomy=base.anatomy)
        return lambda: scorer.evaluate().perplexity


@dataclasses.dataclass(frozen=True, eq=False)
class TaskAccuracy:
    """Accuracy on the select split of another task; the harm is what is lost of it, base − edited.

    Args:
        task: scored by right and wrong.
        limit: score a random sample of this size.

    Raises:
        UsageError: the task is scored by loss alone.
    """

    task: Task
    limit: int | None = 500

    def __post_init__(self) -> None:
        if self.task.score == "perplexity" or (self.task.labels is not None and not self.task.labels.names):
            raise UsageError(
                f"Task {self.task.name} is scored by loss alone, and a guard needs right and wrong answers."
            )

    @property
    def name(self) -> str:
        """The task's."""
        return self.task.name

    @property
    def unit(self) -> str:
        """Accuracy is a fraction."""
        return "accuracy"

    @property
    def bound_unit(self) -> BoundUnit:
        """The harm is a difference of fractions."""
        return "points"

    @property
    def fingerprint(self) -> str:
        """Of the task, and of how much of it is asked."""
        return f"task {self.task.fingerprint} {self.limit}"

    def harm(self, base: float, edited: float) -> float:
        """Return base − edited."""
        return base - edited

    def reader(self, base: Base) -> Reader:
        """Encode the examples once.

        Raises:
            TaskError: a row does not fit the model.
            UsageError: the model is not of the kind the task is for.
        """
        examples = self.task.examples("select", limit=self.limit)
        scorer = scorer_of(base.model, base.tokenizer, self.task, examples, anatomy=base.anatomy)

        def read() -> float:
            accuracy = scorer.evaluate().accuracy
            assert accuracy is not None  # refused above
            return accuracy

        return read
