"""How far an edit moves a model away from its base, on text that has nothing to do with the task."""

import dataclasses
import fractions
import math
from collections.abc import Mapping
from typing import Any

from strop.errors import UsageError
from strop.statistics.intervals import Interval, interval_from_json, interval_to_json

HARDLY, SOME = (0.02, 0.01), (0.1, 0.1)
"""Shares of changed words, and nats per token, up to which an edit is hardly noticed elsewhere, and up to which other uses are
to be tried; the worse of the two counts."""


@dataclasses.dataclass(frozen=True)
class Drift:
    """The distance of an edited model from its base on the same tokens of the same texts.

    Raises:
        UsageError: a share outside 0 to 1, or no texts.

    >>> Drift(kl=0.0, changed=0.0, perplexity=11.2, perplexity_ratio=1.0, texts=64, tokens=3072).identical
    True
    """

    kl: float
    """Mean over tokens of KL(base ‖ edited) = Σ_v p(v) log(p(v) / q(v)) over the vocabulary, in nats per token."""
    changed: float
    """Share of tokens, 0 to 1, in whose place the edited model's likeliest token is another than the base's."""
    perplexity: float
    """Of the base on these tokens."""
    perplexity_ratio: float
    """PPL(edited) / PPL(base) on these tokens."""
    texts: int
    """How many were read."""
    tokens: int
    """At how many of their places the two models were compared."""
    source: str = "base"
    """Who wrote the texts: `base` for the base model itself, else the name of a file."""
    kl_ci95: Interval | None = None
    """95 % interval of `kl` over other texts of the kind, each text one observation; None in what an older version wrote."""

    def __post_init__(self) -> None:
        if not 0 <= self.changed <= 1:
            raise UsageError(f"A share is from 0 to 1, not {self.changed:g}.")
        if self.texts < 1 or self.tokens < 1:
            raise UsageError(f"Drift is measured on one text or more, not on {self.texts} of {self.tokens} tokens.")

    @property
    def identical(self) -> bool:
        """Whether the two models predict the same to the last bit."""
        return self.kl == 0 and self.changed == 0 and self.perplexity_ratio == 1

    @property
    def verdict(self) -> str:
        """What it means in plain words for other uses of the model.

        >>> Drift(kl=0.6, changed=0.4, perplexity=9.0, perplexity_ratio=1.74, texts=64, tokens=3072).verdict
        'changes 2 of 5 words the base would say: for this task only'
        """
        if self.identical:
            return "changes nothing the base would say"
        words = "changes no word the base would say first"
        if self.changed:
            words = f"changes {_in_words(self.changed)} words the base would say"
        if self.changed <= HARDLY[0] and self.kl <= HARDLY[1]:
            return f"{words}: hardly noticed in other uses"
        some = self.changed <= SOME[0] and self.kl <= SOME[1]
        return f"{words}: {'try your other uses first' if some else 'for this task only'}"

    def is_surely_less_than(self, other: "Drift") -> bool:
        """Return whether it is smaller than another one beyond both their intervals, which do not overlap."""
        if self.kl_ci95 is None or other.kl_ci95 is None:
            return False
        return self.kl_ci95[1] < other.kl_ci95[0]

    @property
    def spelt_kl(self) -> str:
        """The divergence with as many digits as mean something."""
        return _spelt(self.kl)

    def __str__(self) -> str:
        """Spell the three figures, and on what they were measured.

        >>> str(Drift(kl=0.6, changed=0.4, perplexity=9.0, perplexity_ratio=1.74, texts=64, tokens=3072))
        'drift 0.60 nats per token, 40.0 % of words changed, perplexity × 1.740 (64 texts the base wrote itself)'
        """
        texts = (
            f"{self.texts} texts the base wrote itself"
            if self.source == "base"
            else f"{self.texts} parts of {self.source}"
        )
        interval = ""
        if self.kl_ci95 is not None and not self.identical:
            interval = f" ({_spelt(max(self.kl_ci95[0], 0.0))} to {_spelt(self.kl_ci95[1])})"
        return (
            f"drift {self.spelt_kl} nats per token{interval}, {100 * self.changed:.1f} % of words changed, "
            f"perplexity × {self.perplexity_ratio:.3f} ({texts})"
        )

    def to_json(self) -> dict[str, Any]:
        """Return what a result file holds."""
        content = dataclasses.asdict(self)
        del content["kl_ci95"]
        return content if self.kl_ci95 is None else {**content, "kl_ci95": interval_to_json(self.kl_ci95)}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Drift":
        """Return the drift a result file holds, where JSON has null for what is not finite.

        Raises:
            KeyError: a figure is missing.
        """
        figures = {name: _number(content[name]) for name in ("kl", "changed", "perplexity_ratio")}
        return cls(
            **figures,
            perplexity=_number(content.get("perplexity")),
            texts=content.get("texts", 1),
            tokens=content.get("tokens", 1),
            source=content.get("source", "base"),
            kl_ci95=interval_from_json(content["kl_ci95"]) if content.get("kl_ci95") is not None else None,
        )


def _spelt(nats: float) -> str:
    return f"{nats:.2f}" if nats >= 0.1 or nats != nats else f"{nats:.2g}"


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _in_words(share: float) -> str:
    """Spell a share as a fraction that people can picture."""
    if share < 0.3:
        return f"1 of {round(1 / share)}"
    near = fractions.Fraction(share).limit_denominator(5)
    if near == 1:
        return "all" if share == 1 else "nearly all"
    return f"{near.numerator} of {near.denominator}"
