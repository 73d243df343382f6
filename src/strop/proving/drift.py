"""Drift from the base: what it is measured on, and as a measure that a guard can bound."""

import dataclasses
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from strop.anatomy import Anatomy
from strop.checkpoints import identify
from strop.errors import UsageError
from strop.progress import SILENT, Progress
from strop.proving.measures import Base, BoundUnit
from strop.scoring import DriftScorer, Texts, own_texts, texts_in, writes
from strop.statistics import Drift
from strop.tasks.plain_text import digest_of, read_text, refuse_blank

TEXTS = 32
"""How many are read."""


@dataclasses.dataclass(frozen=True, eq=False)
class DriftText:
    """What drift is measured on: text the base writes itself, or a user's own.

    Raises:
        UsageError: the user's text is blank.

    >>> DriftText().name
    'base'
    """

    name: str = "base"
    """`base`, or the file's name."""
    text: str | None = None
    """None for text the base writes itself."""

    def __post_init__(self) -> None:
        if self.text is not None:
            refuse_blank(self.text, called=f"The text {self.name}")

    @classmethod
    def read(cls, path: Path) -> "DriftText":
        """Read a user's text from a file.

        Raises:
            UsageError: there is no such file, or it is not UTF-8 text.
        """
        return cls(path.name, read_text(path, called=f"The text {path}"))

    @property
    def fingerprint(self) -> str:
        """What tells it from another text."""
        return f"own {TEXTS}" if self.text is None else digest_of(self.text)

    def check(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, anatomy: Anatomy) -> None:
        """Make sure, before time is spent, that drift can be measured on a user's text; it asks nothing of the base's own.

        Args:
            model: that is to be measured.
            tokenizer: the model's.
            anatomy: the model's.

        Raises:
            UsageError: the model predicts no next token, or the text is too short.
        """
        if self.text is not None:
            self.texts(model, tokenizer, anatomy=anatomy)

    def texts(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        anatomy: Anatomy,
        fingerprint: str | None = None,
        progress: Progress = SILENT,
    ) -> tuple[Texts, ...]:
        """Return the texts as tokens; those of the base are sampled from it, or read from the cache.

        Args:
            model: as it is before any edit.
            tokenizer: the model's.
            anatomy: the model's.
            fingerprint: of the model's weights, where it is at hand.
            progress: told of each chunk that is sampled.

        Raises:
            UsageError: the model predicts no next token, or the user's text is too short.
        """
        if not writes(model, anatomy):
            raise UsageError(f"{type(model).__name__} does not predict the next token, and drift is measured on that.")
        if self.text is not None:
            return texts_in(self.text, tokenizer, name=self.name, count=TEXTS, context=anatomy.context(model))
        known = fingerprint if fingerprint is not None else identify(model).fingerprint
        return own_texts(model, tokenizer, fingerprint=known, count=TEXTS, progress=progress)


def texts_beside_drift(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    fingerprint: str,
    count: int,
    progress: Progress = SILENT,
) -> tuple[Texts, ...]:
    """Return texts the base writes itself that its drift is never measured on: for whoever learns from them.

    Args:
        model: as it is before any edit.
        tokenizer: the model's.
        fingerprint: of the model's weights.
        count: of texts.
        progress: told of each chunk that is sampled.
    """
    return own_texts(model, tokenizer, fingerprint=fingerprint, count=count, skip=TEXTS, progress=progress)


@dataclasses.dataclass(frozen=True, eq=False)
class DriftFromBase:
    """KL(base ‖ edited) in nats per token, on text that has nothing to do with the task; the harm is the figure itself.

    Args:
        text: what it is measured on.

    >>> DriftFromBase().harm(0.0, 0.02)
    0.02
    """

    text: DriftText = dataclasses.field(default_factory=DriftText)

    @property
    def name(self) -> str:
        """What people call it."""
        return "drift"

    @property
    def unit(self) -> str:
        """Of the figure."""
        return "nats per token"

    @property
    def bound_unit(self) -> BoundUnit:
        """The harm is the figure."""
        return "nats"

    @property
    def base_figure(self) -> float | None:
        """A model is nowhere away from itself."""
        return 0.0

    @property
    def fingerprint(self) -> str:
        """Of the texts."""
        return f"drift {self.text.fingerprint}"

    def harm(self, base: float, edited: float) -> float:
        """Return the edited model's drift beyond the base's, which is 0."""
        return edited - base

    def reader(self, base: Base) -> "DriftReader":
        """Let the base read the texts, once.

        Raises:
            UsageError: the model predicts no next token, or the text is too short.
        """
        texts = self.text.texts(base.model, base.tokenizer, anatomy=base.anatomy, fingerprint=base.fingerprint)
        return DriftReader(DriftScorer(base.model, texts, anatomy=base.anatomy, source=self.text.name))


class DriftReader:
    """Drift, made ready for one model.

    Args:
        scorer: has read the base.
    """

    def __init__(self, scorer: DriftScorer) -> None:
        self.scorer = scorer
        self.newest: Drift | None = None
        """What was read last, with all that a single figure leaves out."""

    def __call__(self) -> float:
        """Return the drift of the model as it stands."""
        self.newest = None
        self.newest = self.scorer.read()
        return self.newest.kl
