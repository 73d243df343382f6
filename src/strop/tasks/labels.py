"""What a classifier is to say of a text: one of some labels, or a number."""

import dataclasses
import math

from strop.errors import TaskError, listed, quoted
from strop.statistics.metrics import METRICS, of_classes


@dataclasses.dataclass(frozen=True)
class Labels:
    """The labels of a task with `score: label`, in the order of a classifier's outputs, and what they are judged by.

    Raises:
        TaskError: a single label, two that are the same, or a metric that does not go with them.
    """

    names: tuple[str, ...]
    """Empty where the answer is a number."""
    metric: str
    """One of `strop.statistics.METRICS`."""
    max_tokens: int | None = None
    """Longer texts are cut to this many tokens; None refuses those that do not fit the model."""

    def __post_init__(self) -> None:
        if len(self.names) == 1 or len(set(self.names)) < len(self.names) or not all(map(str.strip, self.names)):
            raise TaskError("labels needs two names or more, none of them empty and none twice, or the word number.")
        if self.metric not in METRICS:
            raise TaskError(f"metric is one of {', '.join(METRICS)}, not '{self.metric}'.")
        if of_classes(self.metric) != bool(self.names):
            fitting = ", ".join(name for name in METRICS if of_classes(name) == bool(self.names))
            kind = "names" if self.names else "number"
            raise TaskError(f"metric: {self.metric} does not go with labels that are {kind}; use {fitting}.")

    @property
    def count(self) -> int:
        """How many outputs a classifier has for them."""
        return len(self.names) or 1

    def target(self, answer: str) -> float:
        """Return what a right answer is as a number: a label's index, or the number itself.

        Raises:
            TaskError: it is none of the labels, or no finite number.
        """
        if self.names:
            if answer not in self.names:
                raise TaskError(
                    f"the answer {quoted(answer)} is not one of the labels [{listed(map(quoted, self.names))}]; spell both alike."
                )
            return float(self.names.index(answer))
        try:
            value = float(answer)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise TaskError(f"the answer {quoted(answer)} is not a finite number, and labels: number asks for one.")
        return value
