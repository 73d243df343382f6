"""result.json: what a run found, in figures."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from strop.runs.price import Price
from strop.runs.reading import reading
from strop.statistics import Comparison, Figures, Rivals, Spread

FORMAT = 1

ROUNDING = 1e-9
"""What lies above a bound by less lies at it: 0.5 − 0.49 is no more than 0.01."""


@dataclasses.dataclass(frozen=True)
class BaseModel:
    """The model a run set out from."""

    id: str
    """A zoo name, a hub id, or the name of a folder."""
    fingerprint: str
    """32 hexadecimal digits over all parameters."""


@dataclasses.dataclass(frozen=True)
class TaskUsed:
    """The task a run was about."""

    name: str
    counts: Mapping[str, int]
    """split → examples used."""
    shots: int = 0
    """Train rows before each prompt."""


@dataclasses.dataclass(frozen=True)
class Cost:
    """What a run took."""

    wall_seconds: float
    """All sittings added up."""
    evaluations: int
    """Trials, and the passes over the test split."""
    tokens: int
    """Read on the way, as if each pass had run the whole model."""
    peak_rss_bytes: int
    """The most memory the process held at once; 0 where the system does not say."""
    gpu_seconds: float | None = None
    """Seconds for which GPUs were held, those of several added up; None without one."""
    peak_gpu_bytes: int | None = None
    """The most memory tensors took on the GPUs at once, in the last sitting; None without one."""

    def to_json(self) -> dict[str, Any]:
        """Return what result.json holds of it."""
        return {name: own for name, own in dataclasses.asdict(self).items() if own is not None}


@dataclasses.dataclass(frozen=True)
class BudgetUse:
    """What the choice was allowed to spend."""

    seconds: float | None
    """None for no limit."""
    evaluations: int | None
    """None for no limit."""
    spent: bool
    """Whether nothing further was allowed to begin; then a resume with a larger budget goes on."""


@dataclasses.dataclass(frozen=True)
class GuardReading:
    """What a guard measured of the base and of the choice."""

    name: str
    """Of what was measured."""
    unit: str
    """Of base and edited."""
    base: float
    edited: float
    harm: float
    """By how much the edited model is worse, in the bound's unit; negative where it is better."""
    bound: float
    """The most harm that is allowed."""
    bound_unit: str
    """`share` of the base's figure, or the figure's own unit."""

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "GuardReading":
        """Return the reading a result file holds, where JSON has null for what is not finite."""
        figures = {
            name: float("nan") if content[name] is None else content[name] for name in ("base", "edited", "harm")
        }
        return cls(**{**content, **figures})

    @property
    def holds(self) -> bool:
        """Whether the harm is within the bound, rounding aside; NaN never is."""
        return self.harm <= self.bound + ROUNDING


@dataclasses.dataclass(frozen=True)
class TrainedHead:
    """The classification head that was trained beside the interventions."""

    labels: tuple[str, ...]
    parameters: int


@dataclasses.dataclass(frozen=True)
class PromptUsed:
    """Solved train rows that a choice puts before each prompt, and what they cost on every request."""

    shots: int
    tokens_per_request: float
    """Mean length of a prompt with them."""
    base_tokens_per_request: float
    """Mean length of a prompt as the task has it."""


@dataclasses.dataclass(frozen=True)
class RunResult:
    """The figures of one finished run, field by field as result.json holds them."""

    command: str
    """search, prune, sharpen, train or improve."""
    seed: int
    base_model: BaseModel
    task: TaskUsed
    base: Mapping[str, Figures]
    """split → the figures of the model as it was."""
    edited: Mapping[str, Figures]
    """split → the figures of the model with the recipe applied."""
    comparison: Mapping[str, Comparison]
    """split → edited against base; `test_over_start` beside it where the run set out from a recipe."""
    interventions: tuple[Mapping[str, Any], ...]
    """As the recipe holds them."""
    cost: Cost
    versions: Mapping[str, str]
    edits: tuple[str, ...] = ()
    """What the interventions do, in words, a line each or one for several alike."""
    start: Mapping[str, Figures] = dataclasses.field(default_factory=dict)
    """split → the figures of the model with the recipe the run set out from; empty without one."""
    guards: tuple[GuardReading, ...] = ()
    """What was measured beside the score, for base and choice."""
    price: Price | None = None
    """How far the choice is from the base on other text; None in what an older version wrote."""
    budget: BudgetUse | None = None
    """None where it had no limits."""
    metric: str | None = None
    """What gains are measured in where a classifier is judged, and the name of its figure beside accuracy and loss."""
    head: TrainedHead | None = None
    """None where no classification head was trained."""
    categories: Spread | None = None
    """How the gain on test is spread over the task's categories; None where it names none, or nothing was edited."""
    rivals: Rivals | None = None
    """What a user would do instead; None where it was not measured."""
    prompt: PromptUsed | None = None
    """What the choice puts before each prompt; None where that is nothing."""

    def to_json(self) -> dict[str, Any]:
        """Return the content of result.json."""
        content: dict[str, Any] = {"format": FORMAT, **dataclasses.asdict(self)}
        for name in ("base", "edited", "start"):
            content[name] = {split: figures.to_json() for split, figures in getattr(self, name).items()}
        content["comparison"] = {name: found.to_json() for name, found in self.comparison.items()}
        for name in ("interventions", "edits", "guards"):
            content[name] = list(content[name])
        content["categories"] = self.categories.to_json() if self.categories is not None else None
        content["price"] = self.price.to_json() if self.price is not None else None
        content["rivals"] = self.rivals.to_json() if self.rivals is not None else {}
        content["cost"] = self.cost.to_json()
        if not self.task.shots:
            del content["task"]["shots"]
        for name in ("start", "guards", "price", "categories", "rivals", "budget", "metric", "head", "prompt"):
            if not content[name]:
                del content[name]
        return content

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "RunResult":
        """Return the result whose content this is; what an older version did not write stays empty.

        Raises:
            KeyError: a field is missing.
            TypeError: a field is not of its kind, or unknown.
            ValueError: it is of another format.
        """
        if content["format"] != FORMAT:
            raise ValueError(f"its format is {content['format']!r}, and this version reads {FORMAT}")
        fields = {name: value for name, value in content.items() if name != "format"}
        for name in ("base", "edited", "start"):
            fields[name] = {split: Figures.from_json(own) for split, own in fields.get(name, {}).items()}
        fields["comparison"] = {name: Comparison.from_json(own) for name, own in content["comparison"].items()}
        fields["base_model"] = BaseModel(**content["base_model"])
        fields["task"] = TaskUsed(**content["task"])
        fields["cost"] = Cost(**content["cost"])
        fields["guards"] = tuple(GuardReading.from_json(own) for own in content.get("guards", ()))
        fields["interventions"] = tuple(content["interventions"])
        fields["edits"] = tuple(content.get("edits", ()))
        price, budget, head = content.get("price"), content.get("budget"), content.get("head")
        fields["price"] = None if price is None else Price.from_json(price)
        fields["budget"] = None if budget is None else BudgetUse(**budget)
        categories = content.get("categories")
        fields["categories"] = Spread.from_json(categories) if categories else None
        fields["head"] = None if head is None else TrainedHead(tuple(head["labels"]), head["parameters"])
        prompt = content.get("prompt")
        fields["prompt"] = None if prompt is None else PromptUsed(**prompt)
        fields["rivals"] = Rivals.from_json(content["rivals"]) if content.get("rivals") else None
        return cls(**fields)

    @classmethod
    def read(cls, path: Path) -> "RunResult":
        """Read a result.json.

        Raises:
            RunError: it is not there or cannot be read.
        """
        with reading(path, otherwise="is not a result of this version: {}."):
            return cls.from_json(json.loads(path.read_text(encoding="utf-8")))


def can_be_baked(interventions: Sequence[Mapping[str, Any]], *, head: object | None = None) -> bool:
    """Return whether `strop bake` makes a checkpoint of edits: there are some, none depends on a token's place.

    Args:
        interventions: as a recipe's JSON holds them.
        head: of a classifier, which goes with its recipe.
    """
    placed = any("stream" in entry or entry.get("bias") == "position" for entry in interventions)
    return bool(interventions) and head is None and not placed
