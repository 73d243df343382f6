"""An evaluation: per-example scores of one model on one split."""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from strop.errors import UsageError
from strop.files import write_json
from strop.statistics import Answer, Figures
from strop.statistics.metrics import measure
from strop.tables import data_frame, to_html
from strop.tasks.labels import Labels
from strop.tasks.task_file import Score


@dataclasses.dataclass(frozen=True, eq=False)
class Evaluation:
    """Per-example scores, in the order of the examples.

    Raises:
        UsageError: the arrays are not of one length.
    """

    score: Score
    loss: NDArray[np.float64]
    """(examples,): mean −log p in nats per answer token, or of the label; the squared error of a number."""
    tokens: NDArray[np.int64]
    """(examples,): how many answer tokens that mean runs over."""
    correct: NDArray[np.bool_] | None = None
    """(examples,): whether the answer is right; None for `perplexity` and for numbers."""
    rank: NDArray[np.int64] | None = None
    """(examples,): how many tokens the model found likelier than the answer's first; only for `first_token`."""
    groups: NDArray[np.int64] | None = None
    """(examples,): which examples belong together and are no independent evidence; None where each stands alone."""
    generated: tuple[str, ...] | None = None
    """What the model wrote after each prompt; only for `generate`."""
    extracted: tuple[str | None, ...] | None = None
    """What was read out of it, None where nothing was found; only for `generate`."""
    actual: NDArray[np.float64] | None = None
    """(examples,): the right label's index, or the right number; only for `label`."""
    predicted: NDArray[np.float64] | None = None
    """(examples,): what the model says in its place; only for `label`."""
    labels: Labels | None = None
    """What a classifier was to say; only for `label`."""
    categories: tuple[str, ...] | None = None
    """The kind of each example, by which gains are shown; None where the task names none."""
    said: tuple[Answer | None, ...] | None = None
    """What the model answers: the text, or the place of its choice where each example has choices of its own; for `exact`
    and `first_token` the first token in the answer's place. None where there is no right or wrong."""
    wanted: tuple[Answer, ...] | None = None
    """What would have been right, spelled as `said` is."""

    def __post_init__(self) -> None:
        for name in ("tokens", "correct", "rank", "groups", "actual", "predicted"):
            other = getattr(self, name)
            if other is not None and other.shape != self.loss.shape:
                raise UsageError(
                    f"An evaluation with {self.loss.shape[0]} losses has {other.shape[0]} values of {name}."
                )
        for name in ("categories", "generated", "extracted", "said", "wanted"):
            texts = getattr(self, name)
            if texts is not None and len(texts) != self.count:
                raise UsageError(f"An evaluation with {self.count} losses has {len(texts)} values of {name}.")

    def of_examples(self, indices: Sequence[int]) -> "Evaluation":
        """Return the evaluation of some of the examples, in the order of their indices."""
        own: dict[str, Any] = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, np.ndarray):
                own[field.name] = value[list(indices)]
            elif isinstance(value, tuple):
                own[field.name] = tuple(value[index] for index in indices)
        return dataclasses.replace(self, **own)

    @property
    def count(self) -> int:
        """How many examples."""
        return int(self.loss.shape[0])

    @property
    def accuracy(self) -> float | None:
        """Share of examples answered right, 0 to 1; None for `perplexity` and for numbers."""
        return None if self.correct is None else float(self.correct.mean())

    @property
    def macro(self) -> float | None:
        """Mean over the categories of the share answered right in each, 0 to 1; None without categories or right answers."""
        if self.correct is None or self.categories is None:
            return None
        names, of_each = np.unique(np.array(self.categories), return_inverse=True)
        right = np.bincount(of_each, weights=self.correct, minlength=len(names))
        return math.fsum(right / np.bincount(of_each)) / len(names)  # whatever the order, so that equals are equal

    @property
    def mean_loss(self) -> float:
        """Mean over the examples of their losses, in nats per answer token."""
        return float(self.loss.mean())

    @property
    def perplexity(self) -> float:
        """Exp of the mean −log p over all answer tokens."""
        return float(np.exp((self.loss * self.tokens).sum() / self.tokens.sum()))

    @property
    def metric(self) -> tuple[str, float] | None:
        """The name and value of the metric a classifier is judged by; None for a language model."""
        if self.labels is None or self.actual is None or self.predicted is None:
            return None
        return self.labels.metric, measure(self.labels.metric, self.actual, self.predicted, self.labels.count)

    def top(self, count: int) -> float | None:
        """Share of examples whose answer's first token is among the `count` likeliest; only for `first_token`."""
        return None if self.rank is None else float((self.rank < count).mean())

    @property
    def figures(self) -> Figures:
        """What a result file holds of it."""
        return Figures(
            accuracy=self.accuracy,
            loss=self.mean_loss,
            count=self.count,
            top5=self.top(5),
            top10=self.top(10),
            perplexity=self.perplexity if self.score == "perplexity" else None,
            metric=self.metric,
            macro=self.macro,
        )

    def save(self, path: str | Path) -> Path:
        """Write figures and per-example scores as a JSON file, and return its path.

        Args:
            path: of the file.
        """
        examples = [self.of_example(index) for index in range(self.count)]
        write_json(Path(path), {"format": 1, "score": self.score, **self.figures.to_json(), "examples": examples})
        return Path(path)

    def to_pandas(self) -> Any:
        """Return the scores as a `pandas.DataFrame`, an example a row.

        Raises:
            UsageError: pandas is not installed.
        """
        beside: dict[str, Any] = {
            "tokens": self.tokens, "rank": self.rank, "group": self.groups, "category": self.categories,
            "said": self.said, "wanted": self.wanted,
        }  # fmt: skip
        held = {name: list(own) for name, own in beside.items() if own is not None}
        return data_frame(
            [
                {**self.of_example(index), **{name: own[index] for name, own in held.items()}}
                for index in range(self.count)
            ]
        )

    def _repr_html_(self) -> str:
        from strop.report import figures_table

        return to_html(figures_table(self.figures, title=f"scored by {self.score}"))

    def of_example(self, index: int) -> dict[str, Any]:
        """Return one example's scores, as a file of per-example scores holds them."""
        right = {} if self.correct is None else {"correct": bool(self.correct[index])}
        written = {} if self.generated is None else {"generated": self.generated[index]}
        read = {} if self.extracted is None else {"extracted": self.extracted[index]}
        return {"loss": float(self.loss[index]), **right, **written, **read, **self._said(index)}

    def _said(self, index: int) -> dict[str, Any]:
        if self.predicted is None or self.labels is None:
            return {}
        value, names = float(self.predicted[index]), self.labels.names
        return {"predicted": names[int(value)] if names else value}
