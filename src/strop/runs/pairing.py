"""Two runs' answers to the same held-out examples, pair by pair."""

from collections.abc import Sequence

import numpy as np

from strop.runs.answers import KeptAnswer, numbered_groups
from strop.runs.sides import Change
from strop.statistics import compare_differences, spread_of
from strop.statistics.spread import Measure


def same_examples(a: Sequence[KeptAnswer], b: Sequence[KeptAnswer]) -> bool:
    """Return whether two runs kept answers to the same examples, in the same order, judged in the same way.

    Args:
        a: of one run.
        b: of the other.
    """
    asked = [[(answer.row, answer.prompt, answer.wanted, answer.score) for answer in answers] for answers in (a, b)]
    return bool(a) and asked[0] == asked[1]


def pair_answers(a: Sequence[KeptAnswer], b: Sequence[KeptAnswer]) -> Change | None:
    """Return what the second run's edited model is against the first's, example by example.

    Right and wrong answers are compared, or losses where nothing is right or wrong; see `strop.statistics.compare_differences`.

    Args:
        a: answers of the first.
        b: of the second.

    Returns:
        None where they are not of the same examples, or a loss that counts is not finite.

    >>> import dataclasses
    >>> of_a = [KeptAnswer(row=row, score="exact", prompt="", wanted="", right_after=False) for row in range(8)]
    >>> of_b = [dataclasses.replace(answer, right_after=True) for answer in of_a]
    >>> pair_answers(of_a, of_b).comparison.gain
    1.0
    """
    if not same_examples(a, b):
        return None
    by_right = all(answer.right_after is not None for answer in (*a, *b))
    of_a, of_b = ([answer.right_after if by_right else answer.loss_after for answer in own] for own in (a, b))
    if None in of_a or None in of_b:
        return None
    first, second = np.array(of_a, dtype=np.float64), np.array(of_b, dtype=np.float64)
    groups = np.array(numbered_groups(a), dtype=np.int64)
    compared = compare_differences(
        second - first if by_right else first - second, groups=groups, right_or_wrong=by_right
    )
    categories = [answer.category for answer in a]
    if all(category is None for category in categories):
        return Change(compared)
    measure: Measure = "accuracy" if by_right else "loss"
    return Change(compared, spread_of(first, second, categories=categories, groups=groups, measure=measure))
