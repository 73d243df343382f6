"""How a gain is spread over the kinds of examples: by category, as an average over them, and in a sentence."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from strop.errors import UsageError
from strop.statistics.comparison import compare_differences
from strop.statistics.groups import Floats, Indices, grouped_mean, number_groups
from strop.statistics.intervals import (
    Interval,
    interval_from_json,
    interval_to_json,
    mean_interval,
    score_interval,
    student_interval,
)

Measure = Literal["accuracy", "loss"]
OTHER = "other"
"""What examples without a category are called."""


@dataclasses.dataclass(frozen=True)
class CategoryGain:
    """What an edit changed on the examples of one category."""

    name: str
    count: int
    """Examples."""
    base: float
    """Accuracy of the model as it was, as a fraction; or its mean loss, in nats per token."""
    edited: float
    """The same of the edited model."""
    gain: float
    """Edited minus base accuracy; or base minus edited loss."""
    fixed: int
    """Examples wrong before and right after; or whose loss fell."""
    broken: int
    """Examples right before and wrong after; or whose loss rose."""
    ci95: Interval
    """Of the gain, as a comparison's."""

    @property
    def falls(self) -> bool:
        """Whether it is worse after than before."""
        return self.gain < 0

    @property
    def surely_falls(self) -> bool:
        """Whether its whole interval lies below 0."""
        return self.ci95[1] < 0


@dataclasses.dataclass(frozen=True)
class Spread:
    """How a gain is spread over categories.

    Raises:
        UsageError: there is no category.
    """

    measure: Measure
    """What gains are gains of: accuracy, or loss in nats per token."""
    categories: tuple[CategoryGain, ...]
    """Those that add most to the gain first."""
    macro_base: float
    """Mean of the categories' figures, each counting the same however many examples it has."""
    macro_edited: float
    macro_gain: float
    macro_ci95: Interval
    """Of the macro gain on other examples of the same categories."""
    ci95_categories: Interval
    """Of the plain gain, had other categories of the same kind been asked: each is one observation."""

    def __post_init__(self) -> None:
        if not self.categories:
            raise UsageError("A spread needs one category or more.")

    @property
    def count(self) -> int:
        """How many examples, of all categories."""
        return sum(category.count for category in self.categories)

    @property
    def gain(self) -> float:
        """Over all examples, each counting the same."""
        return sum(category.count * category.gain for category in self.categories) / self.count

    @property
    def holding_most(self) -> int:
        """The fewest categories that together make more than half of what the gaining ones add; 0 where none gains."""
        gains = [category.count * category.gain for category in self.categories if category.gain > 0]
        held = np.cumsum(sorted(gains, reverse=True))
        return 0 if not gains else int(np.searchsorted(held, held[-1] / 2, side="right")) + 1

    @property
    def falling(self) -> int:
        """How many categories are worse after than before."""
        return sum(category.falls for category in self.categories)

    @property
    def surely_falling(self) -> int:
        """How many of these beyond their own interval."""
        return sum(category.surely_falls for category in self.categories)

    @property
    def sentence(self) -> str:
        """In how many categories most of the gain is, and how many fall."""
        total = len(self.categories)
        falling = f"{self.falling} fall{'s' if self.falling == 1 else ''}" if self.falling else "none falls"
        if self.surely_falling:
            falling += f" ({self.surely_falling} beyond {'its' if self.surely_falling == 1 else 'their'} interval)"
        if not self.holding_most:
            return f"None of {_categories(total)} gains; {falling}."
        net = (
            sum(category.fixed - category.broken for category in self.categories)
            if self.measure == "accuracy"
            else self.gain
        )
        if net <= 0:
            gaining = sum(category.gain > 0 for category in self.categories)
            return f"{gaining} of {_categories(total)} gain{'s' if gaining == 1 else ''} no more than others lose; {falling}."
        name = f" ({self.categories[0].name})" if self.holding_most == 1 and total > 1 else ""
        return f"Most of the gain is in {self.holding_most} of {_categories(total)}{name}; {falling}."

    def to_json(self) -> dict[str, Any]:
        """Return what a result file holds, with null for a bound that is none."""
        content = dataclasses.asdict(self)
        content["categories"] = [
            {**dataclasses.asdict(category), "ci95": interval_to_json(category.ci95)} for category in self.categories
        ]
        for name in ("macro_ci95", "ci95_categories"):
            content[name] = interval_to_json(getattr(self, name))
        return content

    def macro_to_json(self) -> dict[str, Any]:
        """Return what a recipe holds: the averages over categories, and the sentence, without each category's figures."""
        content = self.to_json()
        averages = {
            name: content[name] for name in ("measure", "macro_base", "macro_edited", "macro_gain", "macro_ci95")
        }
        return {"count": len(self.categories), **averages, "sentence": self.sentence}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Spread":
        """Return the spread a result file holds.

        Raises:
            KeyError: a field is missing.
        """
        fields = {field.name: content[field.name] for field in dataclasses.fields(cls)}
        for name in ("macro_ci95", "ci95_categories"):
            fields[name] = interval_from_json(content[name])
        fields["categories"] = tuple(
            CategoryGain(**{**own, "ci95": interval_from_json(own["ci95"])}) for own in content["categories"]
        )
        return cls(**fields)


def _categories(count: int) -> str:
    return f"{count} categories" if count != 1 else "1 category"


def spread_of(
    base: NDArray[Any],
    edited: NDArray[Any],
    *,
    categories: Sequence[str | None],
    groups: Indices | None = None,
    measure: Measure = "accuracy",
    seed: int = 0,
) -> Spread:
    """Return how a gain is spread over categories.

    macro gain = (1/C) Σ_c mean_{i in c} d_i, with d_i what changed on example i. Its interval takes the categories as given and
    counts groups within them (see `score_interval` for right and wrong answers, `mean_interval` for losses). That of the plain
    gain by categories takes each category as one observation, as if they had been drawn from many: t standard errors, with
    t Student's of one less than their number, and no narrower than the interval by groups.

    Args:
        base: (examples,), of the model as it was: 1 or true for a right answer, 0 or false for a wrong one; or losses.
        edited: (examples,), the same of the edited model.
        categories: of each example; None or an empty one is called "other".
        groups: (examples,), the number of each example's group; None where each stands alone.
        measure: what the numbers are: right and wrong answers (accuracy), or losses, of which a fall is a gain.
        seed: of the resampling of losses.

    Raises:
        UsageError: the arrays are not of one length, or hold no example.

    >>> found = spread_of(
    ...     np.array([0, 0, 0, 0, 1, 1]), np.array([1, 1, 1, 0, 0, 1]), categories=["city"] * 4 + ["metal"] * 2
    ... )
    >>> [(each.name, each.gain) for each in found.categories], found.macro_gain
    ([('city', 0.75), ('metal', -0.5)], 0.125)
    >>> found.sentence
    'Most of the gain is in 1 of 2 categories (city); 1 falls.'
    """
    if not len(base) == len(edited) == len(categories) or len(base) == 0:
        raise UsageError(
            f"Figures by category need as many categories as answers, not {len(categories)} for {len(base)} and {len(edited)}."
        )
    before, after = base.astype(np.float64), edited.astype(np.float64)
    difference = after - before if measure == "accuracy" else before - after
    names, strata = np.unique([name or OTHER for name in categories], return_inverse=True)
    index = number_groups(groups, len(difference))
    each = [
        _category(str(name), before[own], after[own], difference[own], index[own], measure, seed)
        for number, name in enumerate(names)
        if (own := strata == number).any()
    ]
    shares = (1 / (len(names) * np.bincount(strata)))[strata]
    return Spread(
        measure,
        tuple(sorted(each, key=lambda category: (-category.count * category.gain, category.name))),
        macro_base=float((shares * before).sum()),
        macro_edited=float((shares * after).sum()),
        macro_gain=float((shares * difference).sum()),
        macro_ci95=_interval(difference, index, measure, seed, shares=shares, strata=strata),
        ci95_categories=_by_categories(difference, strata, _interval(difference, index, measure, seed), measure),
    )


def _interval(
    difference: Floats,
    groups: Indices,
    measure: Measure,
    seed: int,
    *,
    shares: Floats | None = None,
    strata: Indices | None = None,
) -> Interval:
    if measure == "accuracy":
        return score_interval(difference, groups, shares=shares, strata=strata)
    return mean_interval(difference, groups, shares=shares, strata=strata, seed=seed)


def _by_categories(difference: Floats, strata: Indices, by_groups: Interval, measure: Measure) -> Interval:
    """Return the interval of the mean with each category as one observation, no narrower than that by groups."""
    low, high = student_interval(grouped_mean(difference, strata))
    low, high = min(low, by_groups[0]), max(high, by_groups[1])
    return (max(low, -1.0), min(high, 1.0)) if measure == "accuracy" else (low, high)


def _category(
    name: str, before: Floats, after: Floats, difference: Floats, groups: Indices, measure: Measure, seed: int
) -> CategoryGain:
    found = compare_differences(difference, groups=groups, right_or_wrong=measure == "accuracy", seed=seed)
    return CategoryGain(
        name,
        len(before),
        base=float(before.mean()),
        edited=float(after.mean()),
        gain=found.gain,
        fixed=found.fixed,
        broken=found.broken,
        ci95=found.ci95,
    )
