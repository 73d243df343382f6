"""What a trial keeps of every example, so that it can be paired with others, in this sitting or a later one."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from strop.scoring import Evaluation


@dataclasses.dataclass(frozen=True)
class PerExample:
    """What a model scored on each of some examples, in their order.

    >>> own = PerExample((0.5, 2.0), correct=(True, False))
    >>> own.to_json(), PerExample.from_json(own.to_json()) == own
    ({'loss': [0.5, 2.0], 'correct': '10'}, True)
    """

    loss: tuple[float, ...]
    """Nats per answer token, or the squared error of a number."""
    correct: tuple[bool, ...] | None = None
    """Whether the answer is right; None for `perplexity` and for numbers."""
    predicted: tuple[float, ...] | None = None
    """What a classifier says; None for a language model."""

    @classmethod
    def of(cls, evaluation: Evaluation) -> "PerExample":
        """Return what is kept of an evaluation.

        Args:
            evaluation: of any kind.
        """
        correct, predicted = evaluation.correct, evaluation.predicted
        return cls(
            tuple(evaluation.loss.tolist()),
            None if correct is None else tuple(correct.tolist()),
            None if predicted is None else tuple(predicted.tolist()),
        )

    def then(self, more: "PerExample") -> "PerExample":
        """Return what was scored on these examples and on more of them behind.

        Args:
            more: of the same model and kind.
        """
        return PerExample(
            self.loss + more.loss,
            None if self.correct is None or more.correct is None else self.correct + more.correct,
            None if self.predicted is None or more.predicted is None else self.predicted + more.predicted,
        )

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON can hold it: right and wrong as digits, what it has not left out."""
        content: dict[str, Any] = {"loss": list(self.loss)}
        if self.correct is not None:
            content["correct"] = "".join(str(int(own)) for own in self.correct)
        if self.predicted is not None:
            content["predicted"] = list(self.predicted)
        return content

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "PerExample":
        """Return what `to_json` returned.

        Args:
            content: of a study.
        """
        correct, predicted = content.get("correct"), content.get("predicted")
        return cls(
            tuple(content["loss"]),
            None if correct is None else tuple(own == "1" for own in correct),
            None if predicted is None else tuple(predicted),
        )
