"""Which of many models, scored on the same examples, cannot be the best of them: paired tests of each with each."""

import math
from collections.abc import Sequence

import numpy as np
import scipy.special
from numpy.typing import NDArray

from strop.statistics.flips import sign_flip_p_value
from strop.statistics.groups import Floats, Indices, number_groups, totals_of


def ruled_out(
    losses: Floats,
    figures: Sequence[float],
    *,
    level: float,
    by_answers: bool = False,
    answers: Floats | None = None,
    groups: Indices | None = None,
) -> NDArray[np.bool_]:
    """Return which models the data rule out as the best, (models,).

    A model is out where another one surely has the lower loss, p < level by `p_values_of_lower`, and on these examples no lower
    figure and, where answers count, no lower mean probability exp(−loss) of what is right; and, by right and wrong answers, where
    the one with the highest figure surely has more right, p < level by the exact test that turns the signs of groups. With
    level = 0.05 / (models − 1) the test of losses rules out the model whose loss is truly the lowest in one case of twenty at most,
    that of answers the one that truly answers most (Bonferroni). The loss is not what answers are: an edit may raise it by what
    it makes of answers that are wrong anyway, and still answer more. Such a one is kept by the figure and the probability, which
    such answers hardly move.

    Args:
        losses: (models, examples), paired.
        figures: (models,), what is to be maximised, such as accuracy; all 0 where it is the loss.
        level: of a single test.
        by_answers: the figure counts answers that are right.
        answers: (models, examples), 1 where right and 0 where wrong; None where the figure is no mean of such.
        groups: (examples,), the number of each example's group; None where each stands alone.

    >>> rng = np.random.default_rng(0)
    >>> good = rng.normal(2.0, 1.0, 40)
    >>> losses = np.stack([good, good + 0.01 * rng.normal(size=40), good + 1.0 + 0.1 * rng.normal(size=40)])
    >>> ruled_out(losses, [0.0, 0.0, 0.0], level=0.001).tolist()
    [False, False, True]
    """
    figure = np.asarray(figures, dtype=np.float64)
    no_lower = figure[:, None] >= figure[None, :]
    if by_answers:
        right = np.exp(-losses).mean(axis=1)
        no_lower &= right[:, None] >= right[None, :]
    lower = p_values_of_lower(losses, groups=groups) < level
    out: NDArray[np.bool_] = np.logical_or.reduce(lower & no_lower, axis=0)
    if answers is not None:
        leader, index = answers[int(figure.argmax())], number_groups(groups, losses.shape[1])
        for place in np.flatnonzero(~out & (answers.sum(1) < leader.sum())):
            p_value = sign_flip_p_value(totals_of(leader - answers[place], index), counts=True)
            out[place] = p_value / 2 < level  # two-sided, and the signs are symmetric
    return out


def p_values_of_lower(losses: Floats, *, groups: Indices | None = None) -> Floats:
    """Return how likely each model's loss lay so far below each other's were it not lower, (models, models): one-sided paired t.

    For models i and j with the mean losses l_i and l_j, t = (l_j − l_i) / √v with v the cluster-robust variance of the difference,
    G/(G − 1) Σ_g (r_gi − r_gj)² over the residuals r of G groups, and Student's t with one less than their effective number.
    All pairs come from one product of residuals.

    Args:
        losses: (models, examples), paired.
        groups: (examples,), the number of each example's group; None where each stands alone.

    >>> losses = np.array([[1.0, 2.0, 3.0, 4.0], [1.4, 2.6, 3.4, 4.6]])
    >>> round(float(p_values_of_lower(losses)[0, 1]), 4)  # as scipy.stats.ttest_rel says
    0.0016
    """
    index = number_groups(groups, losses.shape[1])
    means = losses.mean(axis=1)
    apart = (losses - means[:, None]) / losses.shape[1]
    residuals = np.stack([totals_of(own, index) for own in apart])
    count = residuals.shape[1]
    degrees = 1 / float((totals_of(np.full(len(index), 1 / len(index)), index) ** 2).sum()) - 1
    if degrees < 1e-9:  # one group says nothing of its error
        return np.ones((len(losses), len(losses)))
    products = residuals @ residuals.T
    own = np.diag(products)
    variance = np.maximum(own[:, None] + own[None, :] - 2 * products, 0.0) * count / (count - 1)
    rounding = 1e-12 * (own[:, None] + own[None, :])
    t = (means[None, :] - means[:, None]) / np.sqrt(np.maximum(variance, np.maximum(rounding, math.ulp(0.0))))
    p_values: Floats = scipy.special.stdtr(degrees, -t)
    np.fill_diagonal(p_values, 1.0)
    return p_values
