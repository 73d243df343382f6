"""Who is in the running: a method at one setting, sized for what a round gives it."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

from strop.improving.pace import PASSES_OF_GRADIENT, PASSES_OF_STEP, Pace
from strop.improving.plan import FamilyName
from strop.improving.prompts import PromptChooser
from strop.improving.reserve import DRIFT_TOKENS
from strop.interventions import FORMULAS
from strop.proving import Assignment, Chooser
from strop.scoring import writes
from strop.searching import PrunePlan, Pruner, ReductionChooser, SearchPlan, Sharpener, SharpenPlan
from strop.statistics import ObjectiveName
from strop.tasks import Task
from strop.training.fitter import Fitter
from strop.training.plan import TrainPlan

FEWEST = 8
"""Examples that are always learned from, however short the time is."""
BATCH = 16
PROMPTS = "examples in the prompt"
"""Who finds the best prompt, by name."""

NO_TRAIN = "the task has no train split; give it a share under splits: in the task file."

Texts = Literal["none", "few", "many"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Share:
    """What a round gives to one contender."""

    select: int
    """Examples to choose by."""
    train: int
    """Examples to learn from, or to take gradients over."""
    last: bool
    """It is the last round: no later one repairs what is left out here."""
    seconds: float
    """That it may take."""
    objective: ObjectiveName
    seed: int
    goes_on: bool = False
    """It learns on from what it found in an earlier round."""
    epochs: int = 1
    """How often what learns reads its examples."""
    slowed: float = 1.0
    """By how much the rate is divided at which it learns."""

    def to_json(self) -> dict[str, Any]:
        """Return it as a study remembers it."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True, eq=False)
class Contender:
    """A method at one setting."""

    name: str
    """Which no other has."""
    family: FamilyName
    make: Callable[[Assignment, Share], Chooser]
    """Returns the method, made ready for an assignment and a share."""
    words: Callable[[Share], str]
    """The setting, in words."""
    size: Callable[[Share, Pace], Share] = lambda share, pace: share
    """Returns what of a share fits the time: how many examples to learn from, and how often."""
    least_passes: float = 12.0
    """Passes over a round's examples that it needs time for: with less it shows nothing, and waits."""
    longer: float = 1.0
    """How many times as long as the task's examples are those it reads: with others in their prompts."""
    learns: bool = False
    """It needs a train split, and in a later round learns on from what it found before."""
    decomposes: bool = True
    """It needs the singular value decompositions of all matrices."""
    of_labels: bool = False
    """It works for classifiers too."""
    texts: Texts = "none"
    """How many texts of the base's own it reads, beside those that drift is measured on."""

    def for_less(self, part: float) -> "Contender":
        """Return it where a part of the time it should have will do.

        Args:
            part: below 1.
        """
        return dataclasses.replace(self, least_passes=part * self.least_passes)

    def refusal(self, task: Task) -> str | None:
        """Return why it cannot be in the running for a task, in one sentence; None where it can."""
        if task.labels is not None and not self.of_labels:
            return "it is for models that write, and this task has labels."
        if task.score == "perplexity" and self.family == "prompt":
            return "no answer is asked for that examples could show."
        if (self.learns or self.family == "prompt") and not task.counts.get("train"):
            return NO_TRAIN
        if self.family in ("sharpen", "prune") and not task.counts.get("train"):
            return f"its gradient would be of the examples that judge it; {NO_TRAIN}"
        return None


def _fitting(share: Share, pace: Pace, passes: float, *, within: float = 1.0, most: int | None = None) -> Share:
    """Return what of a share fits, for a method that reads each example for so many passes in all.

    Args:
        share: given.
        pace: of the machine.
        passes: over each example.
        within: the part of the share's seconds that may go to these passes.
        most: examples.
    """
    there = share.train if most is None else min(share.train, most)
    fitting = math.floor(within * share.seconds / max(passes * pace.seconds_per_example, 1e-9))
    return dataclasses.replace(share, train=max(min(there, FEWEST), min(there, fitting)))


def _shared(share: Share) -> dict[str, Any]:
    return {"select_limit": share.select, "objective": share.objective, "seed": share.seed}


MOST_FOR_GRADIENT = 200
"""Examples a sharpening's gradient is taken over at most."""


def _sharpening(name: str, precondition: Any) -> Contender:
    def steps(share: Share) -> int:
        return 8 if share.last else 3

    def size(share: Share, pace: Pace) -> Share:
        return _fitting(share, pace, steps(share) * PASSES_OF_GRADIENT, most=MOST_FOR_GRADIENT)

    def plan(share: Share) -> SharpenPlan:
        return SharpenPlan(
            precondition=precondition, steps=steps(share), drift=None, examples=share.train, **_shared(share)
        )

    return Contender(
        name,
        "sharpen",
        lambda given, share: Sharpener(given, plan(share)),
        lambda share: f"at most {steps(share)} steps, gradients of {share.train} examples",
        size,
        of_labels=precondition == "sign",
        texts="few" if precondition == "fisher-sign" else "none",
    )


MOST_FOR_RANKING, SHARE_FOR_RANKING = 100, 0.3
"""Examples a search's gradient is taken over at most, and the share of its time for that: the rest is for what it ranks first."""


def _laser(name: str, *, edits: int) -> Contender:
    def plan(share: Share) -> SearchPlan:
        return SearchPlan(
            compose="greedy" if edits > 1 else "none",
            max_edits=edits,
            gradient_examples=share.train,
            top_matrices=12 if share.last else 6,
            finalists=8 if share.last else 4,
            **_shared(share),
        )

    def size(share: Share, pace: Pace) -> Share:
        asked = dataclasses.replace(share, train=share.select)  # the gradient is asked of the examples it chooses by
        return _fitting(asked, pace, PASSES_OF_GRADIENT, within=SHARE_FOR_RANKING, most=MOST_FOR_RANKING)

    return Contender(
        name,
        "laser",
        lambda given, share: ReductionChooser(given, plan(share)),
        lambda share: (
            f"at most {edits} matri{'x' if edits == 1 else 'ces'}, found by the gradient of {share.train} examples"
        ),
        size,
        least_passes=24.0 if edits == 1 else 36.0,
        of_labels=True,
    )


def _eigenpruning() -> Contender:
    def plan(given: Assignment, share: Share) -> PrunePlan:
        return PrunePlan(
            price_weight=10.0 if writes(given.model, given.anatomy) else 0.0,
            whole_matrices=True,
            effect_examples=share.train,
            iterate=8 if share.last else 3,
            **_shared(share),
        )

    def size(share: Share, pace: Pace) -> Share:
        return _fitting(share, pace, 3 * PASSES_OF_GRADIENT, most=MOST_FOR_GRADIENT)

    return Contender(
        "eigenpruning",
        "prune",
        lambda given, share: Pruner(given, plan(given, share)),
        lambda share: f"whole matrices, effects on {share.train} examples",
        size,
        of_labels=True,
        texts="few",
    )


LEAST_EPOCHS = {False: 1, True: 2}
"""How often the examples are read at least, before and in the last round: what learned before learns on."""
MOST_EPOCHS = 6
"""How often they are read where they are few, and the time is long."""


def _learning(share: Share, pace: Pace) -> Share:
    """Return what of a share fits, for what learns: as many examples as can be read often enough, and these as often as can be."""
    look = share.select * pace.seconds_per_example + DRIFT_TOKENS * pace.seconds_per_token
    seconds = max(share.seconds - look, 0.0)  # each epoch is looked at, and the average of the late steps
    least = LEAST_EPOCHS[share.last]
    part = max(seconds - least * look, 0.0) / max(share.seconds, 1e-9)
    sized = _fitting(share, pace, least * PASSES_OF_STEP, within=part)
    epoch = sized.train * PASSES_OF_STEP * pace.seconds_per_example + look
    return dataclasses.replace(sized, epochs=min(max(math.floor(seconds / max(epoch, 1e-9)), least), MOST_EPOCHS))


def _learned(name: str, method: str, rate: float | None = None, **settings: Any) -> Contender:
    of_states = method in FORMULAS

    def plan(given: Assignment, share: Share) -> TrainPlan:
        layers = given.anatomy.layers_of(None) if of_states or method == "lora" else None
        plan = TrainPlan(
            method=method,
            layers=tuple(range(layers // 2, layers)) if layers is not None else None,
            learning_rate=rate,
            batch_size=BATCH,
            accumulate=1,
            epochs=share.epochs,
            train_limit=share.train,
            **settings,
            **_shared(share),
        )
        return dataclasses.replace(plan, learning_rate=plan.rate / share.slowed)

    where = ", upper half of the layers" if of_states or method == "lora" else ""
    return Contender(
        name,
        "train",
        lambda given, share: Fitter(given, plan(given, share), goes_on=share.goes_on),
        lambda share: f"{_epochs(share)} {share.train} examples, kept to the base{where}{_pace(share)}",
        _learning,
        least_passes=30.0,
        learns=True,
        decomposes=method == "spectrum",
        of_labels=True,
        texts="many",
    )


def _epochs(share: Share) -> str:
    """Return in words how often examples are read."""
    return f"{share.epochs} {'more ' if share.goes_on else ''}epoch{'s' if share.epochs > 1 else ''} of"


def _pace(share: Share) -> str:
    """Return in words how slowly it learns, where that is not as fast as by default."""
    return f", {share.slowed:g} times as slowly" if share.slowed > 1 else ""


def _prompts() -> Contender:
    return Contender(
        PROMPTS,
        "prompt",
        lambda given, share: PromptChooser(given, select_limit=share.select),
        lambda share: "the better of 1, 2, 5 and 8 solved examples before each prompt",
        least_passes=6.0,
        decomposes=False,
    )


CONTENDERS: Mapping[str, Contender] = {
    own.name: own
    for own in (
        _prompts(),
        _sharpening("sharpening", "fisher-sign"),
        _sharpening("sharpening by signs", "sign"),
        _laser("LASER", edits=1),
        _laser("LASER, composed", edits=6),
        _eigenpruning(),
        _learned("spectrum", "spectrum"),
        _learned("spectrum, higher rate", "spectrum", rate=0.02),
        _learned("bias", "bias"),
        _learned("LoReFT", "loreft", rate=2e-3),
        _learned("LoReFT, rank 2", "loreft", rate=2e-3, rank=2),
        _learned("DiReFT", "direft", rate=2e-3),
        _learned("LoRA", "lora"),
    )
}
"""Everyone who can be in the running, by name; the model as it is always is."""
