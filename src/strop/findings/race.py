"""How a race of methods went: what each scored in each round, all of a round on the same select examples."""

import dataclasses
from collections import defaultdict
from collections.abc import Mapping, Sequence

from strop.runs import KeptTrial


@dataclasses.dataclass(frozen=True, kw_only=True)
class RaceRound:
    """How one candidate, or the model as it was, stood in a round."""

    examples: int
    """Of select, the same for all in the round."""
    merit: float | None
    """Accuracy, 0 to 1, or a classifier's metric; None where only loss is measured."""
    loss: float
    """Nats per answer token."""
    seconds: float
    """From the run's beginning."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RaceCurve:
    """The rounds of a race; what builds on the best comes in one more, on as many examples as the last."""

    base: Mapping[int, RaceRound]
    """Of the model as it was, by round."""
    candidates: Mapping[str, Mapping[int, RaceRound]]
    """Name → round → the best of what it had to show then, of that round or of an earlier one; in the order they began."""

    @property
    def rounds(self) -> tuple[int, ...]:
        """Their numbers."""
        return tuple(self.base)


def race_curve(trials: Sequence[KeptTrial]) -> RaceCurve | None:
    """Return how the candidates of `strop improve` stood in each round (successive halving, arXiv 1502.07943).

    Args:
        trials: of a run.

    Returns:
        The curve; None where nothing raced.

    >>> def trial(method, round, accuracy, **candidate):
    ...     return KeptTrial(study="s", method=method, stage="choice" if round else "", round=round, split="select", examples=8,
    ...                      candidate=candidate, accuracy=accuracy, loss=2.0)
    >>> found = race_curve([trial("base", 0, 0.1), trial("improve", 1, 0.3, name="LASER", carried=0)])
    >>> {name: own[1].merit for name, own in found.candidates.items()}, found.base[1].merit
    ({'LASER': 0.3}, 0.1)
    """
    raced = [own for own in trials if own.method == "improve" and own.split == "select"]
    if not raced:
        return None
    plain = {own.examples: own for own in trials if own.method == "base" and own.split == "select" and not own.stage}
    candidates: dict[str, dict[int, RaceRound]] = defaultdict(dict)
    for own in raced:
        stood, now = candidates[str(own.candidate["name"])], _round_of(own)
        if own.round not in stood or _order(now) > _order(stood[own.round]):
            stood[own.round] = now
    examples = {own.round: own.examples for own in sorted(raced, key=lambda own: own.round)}
    base = {number: _round_of(plain[count]) for number, count in examples.items() if count in plain}
    return RaceCurve(base=base, candidates={name: dict(sorted(own.items())) for name, own in candidates.items()})


def _round_of(trial: KeptTrial) -> RaceRound:
    merit = trial.metric[1] if trial.metric is not None else trial.accuracy
    return RaceRound(examples=trial.examples, merit=merit, loss=trial.loss, seconds=trial.elapsed_seconds)


def _order(own: RaceRound) -> tuple[float, float]:
    return own.merit if own.merit is not None else 0.0, -own.loss
