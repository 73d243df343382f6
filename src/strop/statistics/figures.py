"""What one model scored on one split, as a result file holds it."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from strop.statistics.merit import Merit, ObjectiveName, merit_of


@dataclasses.dataclass(frozen=True)
class Figures:
    """The figures of one model on one split.

    >>> Figures(accuracy=0.5, loss=2.0, count=10).to_json()
    {'accuracy': 0.5, 'loss': 2.0, 'count': 10}
    """

    accuracy: float | None
    """Share answered right, 0 to 1; None for `perplexity` and for numbers."""
    loss: float
    """Mean over the examples, in nats per answer token; the squared error of a number."""
    count: int
    """How many examples."""
    top5: float | None = None
    """Share whose answer's first token is among the five likeliest; only for `first_token`."""
    top10: float | None = None
    """The same of the ten likeliest."""
    perplexity: float | None = None
    """Exp of the mean −log p over all answer tokens; only for `perplexity`."""
    metric: tuple[str, float] | None = None
    """The name and value of the metric a classifier is judged by; None for a language model."""
    macro: float | None = None
    """Mean over the task's categories of the accuracy in each, 0 to 1; None where it has none."""

    @property
    def merit(self) -> Merit:
        """What a search maximises unless it is told otherwise; see `merit_of`."""
        return self.merit_by("average")

    def merit_by(self, objective: ObjectiveName) -> Merit:
        """Return what a search maximises: by `macro` the macro average, else the metric or accuracy; then minus the loss.

        Args:
            objective: which accuracy counts.

        >>> Figures(0.5, 2.0, 10, macro=0.25).merit_by("macro")
        (0.25, -2.0)
        """
        if objective == "macro":
            return merit_of(self.macro, self.loss)
        return merit_of(self.metric[1] if self.metric is not None else self.accuracy, self.loss)

    def to_json(self) -> dict[str, Any]:
        """Return what a result file holds."""
        content: dict[str, Any] = {"accuracy": self.accuracy, "loss": self.loss, "count": self.count}
        content |= {
            name: own for name in ("top5", "top10", "perplexity", "macro") if (own := getattr(self, name)) is not None
        }
        if self.metric is not None:
            content |= {"metric": self.metric[0], self.metric[0]: self.metric[1]}
        return content

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Figures":
        """Return the figures a result file holds.

        Raises:
            KeyError: loss or count is missing.
        """
        name = content.get("metric")
        return cls(
            accuracy=content.get("accuracy"),
            loss=content["loss"] if content["loss"] is not None else float("nan"),  # JSON has no NaN
            count=content["count"],
            top5=content.get("top5"),
            top10=content.get("top10"),
            perplexity=content.get("perplexity"),
            metric=(name, content[name]) if name is not None else None,
            macro=content.get("macro"),
        )
