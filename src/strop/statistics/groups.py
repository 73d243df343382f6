"""Examples that belong together: what a group of them adds to a mean, and for how many independent ones it counts."""

import dataclasses

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]


@dataclasses.dataclass(frozen=True, eq=False)
class GroupedMean:
    """A weighted mean of values in groups, and what each group adds to its error.

    mean = Σ_i s_i x_i with shares Σ_i s_i = 1. A group's residual is Σ_{i in group} s_i (x_i − centre_i), where the centre is the
    mean of all examples, or of the example's own stratum. The sum of squared residuals is the mean's variance, whatever
    the examples of a group have in common (the linearised, cluster-robust variance: Liang and Zeger, 1986).
    """

    mean: float
    residuals: Floats
    """(groups,): they add up to 0."""
    shares: Floats
    """(groups,): of the mean's weight; they add up to 1."""

    @property
    def variance(self) -> float:
        """Of the mean; for a single group, about which nothing can be said, 0."""
        count = len(self.residuals)
        return float((self.residuals**2).sum()) * count / max(count - 1, 1)

    @property
    def effective_groups(self) -> float:
        """How many groups of one size would bear as much evidence: 1 / Σ share² (Kish, 1965)."""
        return float(1 / (self.shares**2).sum())


def number_groups(groups: Indices | None, count: int) -> Indices:
    """Return the groups of examples numbered from 0 without a gap, (examples,); without groups each stands alone.

    >>> number_groups(np.array([7, 3, 7]), 3).tolist(), number_groups(None, 2).tolist()
    ([1, 0, 1], [0, 1])
    """
    if groups is None:
        return np.arange(count)
    return np.unique(groups, return_inverse=True)[1].astype(np.int64)


def totals_of(values: Floats, index: Indices) -> Floats:
    """Return the sum of values in each group, (groups,).

    >>> totals_of(np.array([1.0, 2.0, 4.0]), np.array([0, 1, 0])).tolist()
    [5.0, 2.0]
    """
    return np.bincount(index, weights=values).astype(np.float64)


def grouped_mean(
    values: Floats, index: Indices, *, shares: Floats | None = None, strata: Indices | None = None
) -> GroupedMean:
    """Return a mean of values in groups with what its error is worked out from.

    Args:
        values: (examples,).
        index: (examples,), groups numbered from 0 without a gap.
        shares: (examples,), of the mean's weight, adding up to 1; by default the same for all.
        strata: (examples,), numbered like groups: kinds of examples that are given and not drawn, so that what sets them
            apart is no error.

    >>> found = grouped_mean(np.array([1.0, 0.0, 0.0, 0.0]), np.array([0, 0, 1, 1]))
    >>> found.mean, found.residuals.tolist(), found.effective_groups
    (0.25, [0.125, -0.125], 2.0)
    """
    shares = np.full(len(values), 1 / len(values)) if shares is None else shares
    mean = float((shares * values).sum())
    apart = values - mean
    if strata is not None:
        weight = totals_of(shares, strata)
        apart = values - (totals_of(shares * values, strata) / weight)[strata]
        members = np.unique(np.stack([strata, index]), axis=1)[0]
        count = np.bincount(members)[
            strata
        ]  # groups in the example's stratum; one of a single group says nothing of itself
        apart = np.where(count > 1, apart * np.sqrt(count / np.maximum(count - 1, 1)), values - mean)
    return GroupedMean(mean, totals_of(shares * apart, index), totals_of(shares, index))
