"""What one contender came out of a round with: edits, a prompt, or nothing, and what select says of it."""

import dataclasses
import functools

from strop.improving.contenders import Contender, Share
from strop.proving import Start, Trial
from strop.recipe import Recipe
from strop.runs import GuardReading, Standing, State, can_be_baked
from strop.statistics import Comparison, Drift

PER_ENTRY_LEVEL = 0.05
"""Most of the chance that the model as it is loses to one that is no better, all that was tried taken together."""
NEAR_A_BOUND, SLOWER = 0.5, 3.0
"""The share of what a guard allows from which on it is near, and how many times as slowly what learns goes on from there."""
STANDARD_ERRORS_IN_INTERVAL = 3.92
"""In a 95 % interval of a normal distribution, from end to end."""


@dataclasses.dataclass(frozen=True, eq=False)
class Found:
    """What a method proposed, before it is judged beside others."""

    recipe: Recipe | None
    """Of its edits; None where there are none."""
    shots: int | None
    """Solved rows before each prompt; None for what the task has."""
    tried: int
    """Candidates that select has chosen it among, in this round and those before."""
    tokens: int
    """Read on the way."""
    drift: Drift | None = None
    """Of its edits from the base, where a guard has read that on the way."""

    @functools.cached_property
    def edits(self) -> Start:
        """What is put on the model; nothing where nothing helped."""
        return Start.of(self.recipe)

    @property
    def changes(self) -> bool:
        """Whether it is anything but the model as it is."""
        return self.recipe is not None or self.shots is not None


@dataclasses.dataclass(frozen=True, eq=False)
class Entry:
    """A proposal, judged on the examples that everyone in its round was judged on."""

    contender: Contender
    share: Share
    found: Found
    trial: Trial
    """What select says of it."""
    gain: Comparison
    """Over the model as it is, on these examples."""
    constant: Comparison | None
    """Over the best constant answer, on these examples; None where no answer is right or wrong."""
    drift: Drift | None
    guards: tuple[GuardReading, ...]
    tokens_per_request: float | None
    seconds: float

    @property
    def name(self) -> str:
        """Of the contender."""
        return self.contender.name

    @property
    def in_short(self) -> str:
        """What select says of it, on one line."""
        figures = self.trial.figures
        measured = figures.metric[1] if figures.metric is not None else figures.accuracy
        shown = f"{100 * measured:.1f} %, " if measured is not None else ""
        gained = f" ({100 * self.gain.gain:+.1f} points)" if measured is not None else f" ({self.gain.gain:+.3f})"
        drift = f", drift {self.drift.spelt_kl}" if self.drift is not None else ""
        found = "" if self.found.changes else ", nothing that helps"
        return f"{shown}loss {figures.loss:.3f} on {figures.count} select examples{gained}{drift}{found}"

    @property
    def can_go_on(self) -> bool:
        """Whether its edits may be learned on from: there are some, and all guards hold."""
        return bool(self.found.edits) and all(reading.holds for reading in self.guards)

    @property
    def slowed_to_go_on(self) -> float:
        """By how much the rate is divided of what learns on: from where half the harm is done that a guard allows."""
        near = any(reading.harm > NEAR_A_BOUND * reading.bound > 0 for reading in self.guards)
        return max(SLOWER if near else 1.0, self.share.slowed)

    @property
    def came_late(self) -> bool:
        """Whether it was found in the last round, or after it."""
        return self.share.last and not self.trial.key.candidate.get("carried")

    def obstacle(self, *, rivals: int) -> str | None:
        """Return why it may not be chosen, in one sentence; None where it may.

        It must hold all guards, and be better than the model as it is, and than the best constant answer, beyond chance: the
        p-value of its gain on select counts for as many as were tried, since the best of many is good by luck too
        (Bonferroni).

        Args:
            rivals: how many entries it was judged beside, itself included.
        """
        if not self.found.changes:
            return "it found nothing that helps."
        broken = next((reading for reading in self.guards if not reading.holds), None)
        if broken is not None:
            return f"the guard on {broken.name} does not hold."
        chance = min(1.0, self.gain.p_value * self.found.tried * rivals)
        if self.gain.gain <= 0 or chance >= PER_ENTRY_LEVEL:
            return (
                f"its gain of {self.gain.gain:+.4f} on {self.trial.key.examples} select examples is not beyond chance "
                f"(p {min(1.0, self.gain.p_value):.2g}, the best of {self.found.tried * rivals} tried)."
            )
        if self.constant is not None and (self.constant.gain <= 0 or self.constant.p_value >= PER_ENTRY_LEVEL):
            return "it is not surely better than always giving the same answer."
        return None

    @property
    def standard_error(self) -> float:
        """Of its gain, in shares of the examples (of the metric, of nats), as its interval has it."""
        low, high = self.gain.ci95
        return (high - low) / STANDARD_ERRORS_IN_INTERVAL

    def is_as_good_and_asks_less(self, best: "Entry") -> bool:
        """Return whether each request has fewer tokens than with the best, and it gains as much within one standard error.

        The one-standard-error rule (Breiman et al. 1984, section 3.4.3): of candidates that the sample can hardly tell apart,
        the cheaper one.

        Args:
            best: judged on the same examples.
        """
        if self.tokens_per_request is None or best.tokens_per_request is None or self.trial.objective != "average":
            return False  # the interval is of the average: of another objective the standard error is not known
        asks_less = self.tokens_per_request < best.tokens_per_request
        return asks_less and best.gain.gain - self.gain.gain <= best.standard_error

    def standing(self, *, state: State, why: str) -> Standing:
        """Return how it stands in a leaderboard.

        Args:
            state: chosen, tried or stopped.
            why: of that, in a sentence.
        """
        recipe = self.found.recipe
        return Standing(
            name=self.name,
            family=self.contender.family,
            setting=self.contender.words(self.share),
            state=state,
            why=why,
            select=self.trial.figures,
            comparison=self.gain,
            drift=self.drift,
            guards=self.guards,
            parameters=_parameters_of(recipe) if recipe is not None else 0,
            bytes=_bytes_of(recipe) if recipe is not None else 0,
            bakeable=recipe is not None and can_be_baked(recipe.describe(), head=recipe.head),
            seconds=round(self.seconds, 1),
            tokens_per_request=self.tokens_per_request,
        )


def _parameters_of(recipe: Recipe) -> int:
    """Return how many numbers a recipe's edits and head hold."""
    edits = zip(recipe.interventions, recipe.matrices, strict=True)
    own = sum(entry.parameter_count(matrix.shape) for entry, matrix in edits)
    return own + (recipe.head.parameter_count if recipe.head is not None else 0)


def _bytes_of(recipe: Recipe) -> int:
    """Return the size of what a recipe carries."""
    return sum(tensor.numel() * tensor.element_size() for own in recipe.tensors for tensor in own.values())
