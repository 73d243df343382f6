"""Gain by category, from a run's answers."""

from collections.abc import Sequence

from strop.findings.measured import measured
from strop.runs import KeptAnswer
from strop.statistics import Spread, spread_of


def gain_by_category(answers: Sequence[KeptAnswer], *, seed: int = 0) -> Spread | None:
    """Return how a run's gain is spread over categories; None where its task names none.

    Args:
        answers: of the run.
        seed: of resampled losses.

    >>> rows = [
    ...     KeptAnswer(row=n, score="exact", prompt="", wanted="", right_before=False, right_after=n < 3, category="ab"[n % 2])
    ...     for n in range(4)
    ... ]
    >>> [(own.name, own.gain) for own in gain_by_category(rows).categories]
    [('a', 1.0), ('b', 0.5)]
    """
    found = measured(answers)
    if found is None or all(answer.category is None for answer in answers):
        return None
    categories = [answer.category for answer in answers]
    return spread_of(
        found.before, found.after, categories=categories, groups=found.groups, measure=found.measure, seed=seed
    )
