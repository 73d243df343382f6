"""Gain against how often the training data held a fact: LASER's Figure 3, with intervals."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from strop.findings.measured import Measured, measured
from strop.runs import KeptAnswer
from strop.statistics import Comparison, compare_differences
from strop.statistics.groups import Floats, Indices

BINS = 6


@dataclasses.dataclass(frozen=True, kw_only=True)
class FrequencyBin:
    """The facts that were held about equally often."""

    least: float
    """The rarest fact's frequency."""
    most: float
    """The most frequent one's."""
    count: int
    """Examples."""
    before: float
    """Accuracy of the model as it was, 0 to 1; or its mean loss, in nats per token."""
    after: float
    comparison: Comparison
    """Of the two, on these examples."""

    @property
    def boost(self) -> float | None:
        """Answers corrected, as a share of those that were right (LASER's Figure 3c); None where none was."""
        right = round(self.before * self.count)
        return self.comparison.fixed / right if right else None


@dataclasses.dataclass(frozen=True, kw_only=True)
class FrequencyTable:
    """Gains by frequency, the rarest facts first."""

    measure: str
    """accuracy or loss."""
    bins: tuple[FrequencyBin, ...]
    unknown: int
    """Examples whose frequency nobody knows, which are left out."""

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        rows = [
            {**{name: getattr(own, name) for name in ("least", "most", "count", "before", "after")},
             "boost": own.boost, "comparison": own.comparison.to_json()}
            for own in self.bins
        ]  # fmt: skip
        return {"measure": self.measure, "bins": rows, "unknown": self.unknown}


def gain_by_frequency(answers: Sequence[KeptAnswer], *, bins: int = BINS, seed: int = 0) -> FrequencyTable | None:
    """Return the gain on facts that the training data held about equally often (Sharma, Ash and Misra, LASER, Figure 3).

    The facts are sorted by frequency and cut into parts of about one size; facts of one frequency are never parted. Each
    part's interval counts groups, as a comparison's does.

    Args:
        answers: of a run.
        bins: most parts.
        seed: of resampled losses.

    Returns:
        The table; None where no frequency is known.

    >>> rows = [
    ...     KeptAnswer(row=n, score="exact", prompt="", wanted="", right_before=False, right_after=n < 4, frequency=n)
    ...     for n in range(8)
    ... ]
    >>> [(own.least, own.most, own.comparison.gain) for own in gain_by_frequency(rows, bins=2).bins]
    [(0.0, 3.0, 1.0), (4.0, 7.0, 0.0)]
    """
    known = [answer for answer in answers if answer.frequency is not None]
    found = measured(known)
    if found is None:
        return None
    frequency = np.array([answer.frequency for answer in known], dtype=np.float64)
    order = np.argsort(frequency, kind="stable")
    parts = [_bin(frequency, part, found, seed) for part in _parts(frequency[order], order, bins)]
    return FrequencyTable(measure=found.measure, bins=tuple(parts), unknown=len(answers) - len(known))


def _parts(ordered: Floats, order: Indices, bins: int) -> list[Indices]:
    """Return indices of examples in parts of about one size, those of one frequency together."""
    parts, start = [], 0
    for left in range(bins, 0, -1):
        if start >= len(order):
            break
        end = min(len(order), start + max(1, round((len(order) - start) / left)))
        end = int(np.searchsorted(ordered, ordered[end - 1], side="right"))
        parts.append(order[start:end])
        start = end
    return parts


def _bin(frequency: Floats, part: Indices, found: Measured, seed: int) -> FrequencyBin:
    before, after, right = found.before[part], found.after[part], found.measure == "accuracy"
    difference = after - before if right else before - after
    return FrequencyBin(
        least=float(frequency[part].min()),
        most=float(frequency[part].max()),
        count=len(part),
        before=float(before.mean()),
        after=float(after.mean()),
        comparison=compare_differences(difference, groups=found.groups[part], right_or_wrong=right, seed=seed),
    )
