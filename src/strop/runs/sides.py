"""Two recipes beside the base they share, in figures: what each changed, what it costs, and how B does against A."""

import dataclasses
from typing import Any, Literal

from strop.runs.price import Price
from strop.runs.result import BaseModel, Cost
from strop.statistics import ChangedAnswers, Comparison, Figures, Rivals, Spread

FORMAT = 1


@dataclasses.dataclass(frozen=True)
class Change:
    """What one model is against another on the same examples.

    >>> sorted(Change(Comparison(0.1, (0.0, 0.2), 0.06, 3, 1)).to_json())
    ['comparison']
    """

    comparison: Comparison
    categories: Spread | None = None
    """How the gain is spread over the task's categories; None where it names none, or nothing was edited."""
    price: Price | None = None
    """How far the second is from the first on other text; None where it was not measured."""
    rivals: Rivals | None = None
    """What a user would do instead; None where it was not measured."""
    changed: ChangedAnswers | None = None
    """Some answers that became right or wrong; None where nobody asked."""

    def to_json(self) -> dict[str, Any]:
        """Return what a report holds of it; what is not known is left out."""
        parts = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: part.to_json() for name, part in parts.items() if part is not None}


@dataclasses.dataclass(frozen=True)
class Side:
    """One of two recipes that are compared."""

    folder: str
    """Of the run or the recipe, as it was given."""
    figures: Figures
    over_base: Change
    cost: Cost | None = None
    """What the run took that found it; None where only the recipe was read."""


@dataclasses.dataclass(frozen=True)
class SideBySide:
    """A base and two recipes on the same examples of one task."""

    base_model: BaseModel
    task: str
    """Its name."""
    split: str
    base: Figures
    a: Side
    b: Side
    b_over_a: Change | None = None
    """Example by example; None where of two finished runs only figures are compared."""
    score: str | None = None
    """How answers were judged; None where two finished runs are read."""
    shots: int = 0
    """Train rows before each prompt."""

    @property
    def sides(self) -> dict[str, Side]:
        """Both by their names, `A` and `B`."""
        return {"A": self.a, "B": self.b}

    @property
    def better(self) -> Literal["A", "B"] | None:
        """Which one is better beyond chance; None where the figures do not show it.

        Paired, the interval of B over A leaves out 0. Not paired, the intervals of the two gains over the base do not overlap:
        their distance is then more than 1.96 (s_A + s_B), and the standard error of the difference is never more than
        s_A + s_B, however the two are correlated.
        """
        if self.b_over_a is not None:
            low, high = self.b_over_a.comparison.ci95
            return "B" if low > 0 else "A" if high < 0 else None
        of_a, of_b = (side.over_base.comparison.ci95 for side in (self.a, self.b))
        return "B" if of_b[0] > of_a[1] else "A" if of_a[0] > of_b[1] else None

    def to_json(self) -> dict[str, Any]:
        """Return what `strop compare --json` prints."""
        changes = {"a_over_base": self.a.over_base, "b_over_base": self.b.over_base}
        if self.b_over_a is not None:
            changes["b_over_a"] = self.b_over_a
        told = {name: change.to_json() for name, change in changes.items()}
        content: dict[str, Any] = {
            "format": FORMAT,
            "command": "compare",
            "paired": self.b_over_a is not None,
            "base_model": dataclasses.asdict(self.base_model),
            "task": {
                "name": self.task,
                **({"score": self.score} if self.score is not None else {}),
                "split": self.split,
                **({"shots": self.shots} if self.shots else {}),
            },
            "folders": {"a": self.a.folder, "b": self.b.folder},
            "base": self.base.to_json(),
            "a": self.a.figures.to_json(),
            "b": self.b.figures.to_json(),
            "better": self.better.lower() if self.better is not None else None,
        }
        for part in ("comparison", "categories", "changed"):
            content[part] = {name: own[part] for name, own in told.items() if part in own}
        for part in ("price", "rivals"):
            content[part] = {name: own[part] for name in ("a", "b") if part in (own := told[f"{name}_over_base"])}
        content["cost"] = {
            name.lower(): side.cost.to_json() for name, side in self.sides.items() if side.cost is not None
        }
        optional = ("categories", "changed", "price", "rivals", "cost")
        return {name: own for name, own in content.items() if own or name not in optional}
