"""How a choice went: the figures of what was tried on the whole select split, one after the other."""

import dataclasses
from collections.abc import Sequence

from strop.runs import KeptTrial


@dataclasses.dataclass(frozen=True, kw_only=True)
class CurvePoint:
    """One trial on the way to a choice."""

    label: str
    """What was tried, in a few words."""
    seconds: float
    """From the run's beginning."""
    merit: float | None
    """Accuracy, 0 to 1, or a classifier's metric; None where only loss is measured."""
    loss: float
    """Nats per answer token."""
    best: bool
    """Whether it was better than all before it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ChoiceCurve:
    """All trials on the whole select split, the model as it was first."""

    by_epoch: bool
    """They are the epochs of a training; else candidates, one after the other."""
    examples: int
    """Of the select split."""
    points: tuple[CurvePoint, ...]


def choice_curve(trials: Sequence[KeptTrial]) -> ChoiceCurve | None:
    """Return what was tried on all select examples, in order: a training's learning curve, a search's progress.

    Args:
        trials: of a run.

    Returns:
        The curve; None where nothing was tried besides the model as it was.

    >>> def trial(epoch, loss):
    ...     return KeptTrial(study="s", method="loreft" if epoch else "base", stage="", round=epoch, split="select", examples=8,
    ...                      candidate={"epoch": epoch} if epoch else {}, accuracy=1 / loss, loss=loss)
    >>> found = choice_curve([trial(0, 4.0), trial(1, 2.0), trial(2, 2.5)])
    >>> [(point.label, point.best) for point in found.points], found.by_epoch
    ([('before', True), ('epoch 1', True), ('epoch 2', False)], True)
    """
    on_select = [own for own in trials if own.split == "select"]
    if not on_select:
        return None
    most = max(own.examples for own in on_select)
    whole = [own for own in on_select if own.examples == most]
    if not any(own.candidate for own in whole):
        return None
    points: list[CurvePoint] = []
    best = (float("-inf"), float("-inf"))
    for own in whole:
        figure = own.metric[1] if own.metric is not None else own.accuracy
        merit = (figure if figure is not None else 0.0, -own.loss)
        better = merit > best
        best = max(best, merit)
        points.append(
            CurvePoint(label=_label(own), seconds=own.elapsed_seconds, merit=figure, loss=own.loss, best=better)
        )
    by_epoch = all("epoch" in own.candidate for own in whole if own.candidate)
    return ChoiceCurve(by_epoch=by_epoch, examples=most, points=tuple(points))


def _label(trial: KeptTrial) -> str:
    candidate = trial.candidate
    if not candidate:
        return "before" if trial.method in ("base", "start") else trial.method
    if "epoch" in candidate:
        return "average of late steps" if candidate.get("averaged") else f"epoch {candidate['epoch']}"
    if "layer" in candidate:
        parted = f" in {candidate['subspaces']}" if "subspaces" in candidate else ""
        more = f", {len(trial.below)} more below" if trial.below else ""
        share = f"{100 * candidate['rank_fraction']:.3g} %{parted}{more}"
        return f"layer {candidate['layer']} {candidate.get('matrix_type', '')} {share}"
    if "size" in candidate:
        return f"step {trial.round}, size {candidate['size']:.3g}"
    return ", ".join(
        f"{name} {value:.3g}" if isinstance(value, float) else f"{value}" for name, value in candidate.items()
    )
