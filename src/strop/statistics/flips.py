"""The test of a paired difference: how surely it is none by chance, by turning the signs of whole groups."""

import numpy as np
import scipy.special
import scipy.stats

from strop.statistics.groups import Floats

SIGNS = 9_999
"""Drawn at random where there are too many groups to try all."""
MOST_ENUMERATED = 13
"""Groups whose signs are all tried: 2^13 = 8,192."""


def sign_flip_p_value(totals: Floats, *, counts: bool, seed: int = 0) -> float:
    """Return how often a sum of group totals with random signs is as far from 0 as the sum as it is.

    p = P(|Σ_g ε_g D_g| ≥ |Σ_g D_g|), ε_g = ±1 with equal chance: were the models exchangeable, either could have been
    called the base, group by group (Fisher, 1935; for right and wrong answers in groups it is the exact form of the test of
    Durkalski et al., 2003, doi:10.1002/sim.1438). Where every group has one example it is McNemar's exact test. For whole
    numbers the distribution of the sum is worked out, by convolution, so that p may be very small. Else all signs are tried
    where there are up to 13 groups, and 9,999 random ones where there are more: p = (1 + as far) / (1 + drawn) (Phipson and
    Smyth, 2010, doi:10.2202/1544-6115.1585).

    Args:
        totals: (groups,), the sum of each group's differences.
        counts: they are whole numbers.
        seed: of random signs.

    >>> sign_flip_p_value(np.array([1.0, 1.0, 1.0, 1.0, 1.0, 0.0]), counts=True)
    0.0625
    """
    changed = np.abs(totals[totals != 0])
    observed = abs(float(totals.sum()))
    if len(changed) == 0:
        return 1.0
    if counts:
        return _exact(changed, observed)
    reach = observed - 1e-9 * float(changed.sum())  # sums in another order round otherwise
    if len(changed) <= MOST_ENUMERATED:
        signs = 1.0 - 2.0 * (np.arange(2 ** len(changed))[:, None] >> np.arange(len(changed)) & 1)
        return float((np.abs(signs @ changed) >= reach).mean())
    return (1 + _random_as_far(changed, reach, seed)) / (1 + SIGNS)


def _exact(changed: Floats, observed: float) -> float:
    """Return P(|Σ ±k_g| ≥ observed) for whole numbers, by the number of minus signs among groups of one total."""
    values, groups = np.unique(np.rint(changed).astype(np.int64), return_counts=True)
    if len(values) == 1:  # a fair coin for each group
        fewer = round((groups[0] - observed / values[0]) / 2)
        return float(scipy.stats.binomtest(fewer, int(groups[0]), 0.5).pvalue)
    chance, least = np.ones(1), 0
    for value, count in zip(values.tolist(), groups.tolist(), strict=True):
        turned = np.zeros(value * count + 1)
        turned[::value] = _coins(count)
        chance, least = np.convolve(chance, turned), least - value * count
    sums = least + 2 * np.arange(len(chance))
    return min(1.0, float(chance[np.abs(sums) >= observed - 0.5].sum()))


def _coins(count: int) -> Floats:
    """Return the chance of each number of heads among fair coins, (count + 1,)."""
    heads = np.arange(count + 1)
    ways = (
        scipy.special.gammaln(count + 1) - scipy.special.gammaln(heads + 1) - scipy.special.gammaln(count - heads + 1)
    )
    chances: Floats = np.exp(ways - count * np.log(2))
    return chances


def _random_as_far(changed: Floats, reach: float, seed: int) -> int:
    generator = np.random.default_rng(seed)
    step = max(1, 2_000_000 // len(changed))
    found = 0
    for start in range(0, SIGNS, step):
        drawn = min(step, SIGNS - start)
        packed = generator.integers(0, 256, size=(drawn, -(-len(changed) // 8)), dtype=np.uint8)
        minus = np.unpackbits(packed, axis=1, count=len(changed)).astype(np.float64)
        found += int((np.abs(changed.sum() - 2 * (minus @ changed)) >= reach).sum())
    return found
