"""Growing shares of the select examples, each holding the one before: what a race is run on."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from strop.proving import Assignment
from strop.proving.per_example import PerExample
from strop.scoring import ClassScorer, Evaluation, Scorer, scorer_of
from strop.tasks import Example
from strop.tasks.examples import categories_of, group_indices

FEWEST = 16
"""Examples of the first share: fewer tell a paired test next to nothing."""


class Shares:
    """The select examples in a drawn order, of which each share is the beginning; only what is new in a share is ever scored.

    Args:
        given: the model and the task.
        examples: all the choice is made by.
        seed: of their order.

    Raises:
        TaskError: a row does not fit the model.
    """

    def __init__(self, given: Assignment, examples: Sequence[Example], *, seed: int) -> None:
        drawn = [examples[index] for index in nested_order(categories_of(examples), len(examples), seed=seed)]
        self.ends = share_ends(len(examples))
        """How many examples each share has, the smallest first, all of them last."""
        starts = (0, *self.ends[:-1])
        self.scorers: tuple[Scorer | ClassScorer, ...] = tuple(
            scorer_of(given.model, given.tokenizer, given.task, drawn[start:end], anatomy=given.anatomy)
            for start, end in zip(starts, self.ends, strict=True)
        )
        """Of what each share adds to the one before."""
        self.groups = group_indices(drawn)
        """(examples,): which of them are no independent evidence."""
        self._score, self._categories = given.task.score, categories_of(drawn)
        scorers = [scorer for scorer in self.scorers if isinstance(scorer, ClassScorer)]
        self._labels = scorers[0].labels if scorers else None
        self._actual = np.concatenate([scorer.actual for scorer in scorers]) if scorers else None

    @property
    def count(self) -> int:
        """How many examples there are in all."""
        return self.ends[-1]

    def new(self, place: int) -> int:
        """Return how many examples a share adds to the one before.

        Args:
            place: of the share, from 0.
        """
        return self.scorers[place].example_count

    def tokens(self, examples: int) -> int:
        """Return the tokens that are read to go on to a share from the one before.

        Args:
            examples: of the share.
        """
        return self.scorers[self.ends.index(examples)].tokens

    def evaluation(self, each: PerExample) -> Evaluation:
        """Return the evaluation of which this is kept.

        Args:
            each: scores of the first so many examples.
        """
        count = len(each.loss)
        return Evaluation(
            self._score,
            np.array(each.loss),
            np.ones(count, dtype=np.int64),
            None if each.correct is None else np.array(each.correct),
            groups=self.groups[:count],
            actual=None if self._actual is None else self._actual[:count],
            predicted=None if each.predicted is None else np.array(each.predicted),
            labels=self._labels,
            categories=None if self._categories is None else self._categories[:count],
        )


def share_ends(count: int) -> tuple[int, ...]:
    """Return how many examples the shares have: all of them, and half as many again and again down to 16.

    >>> share_ends(300), share_ends(20)
    ((19, 38, 75, 150, 300), (20,))
    """
    ends = [count]
    while -(-ends[-1] // 2) >= FEWEST:
        ends.append(-(-ends[-1] // 2))
    return tuple(reversed(ends))


def nested_order(categories: Sequence[str] | None, count: int, *, seed: int) -> NDArray[np.int64]:
    """Return an order of examples at random, of which every beginning holds the categories as nearly in proportion as it can.

    Args:
        categories: of each example; None where there are none.
        count: of examples.
        seed: of the order.

    >>> order = nested_order(["a"] * 8 + ["b"] * 4, 12, seed=0)
    >>> [int((order[:end] < 8).sum()) for end in (3, 6, 12)]
    [2, 4, 8]
    """
    generator = np.random.default_rng(seed)
    if categories is None:
        return generator.permutation(count)
    place = np.empty(count)
    for name in dict.fromkeys(categories):
        own = np.flatnonzero(np.array([category == name for category in categories]))
        place[generator.permutation(own)] = (np.arange(len(own)) + generator.random()) / len(own)
    return np.argsort(place, kind="stable")
