"""Sharpen: a few steps on all singular values, each with a fresh gradient, while select gains and drift allows it."""

import contextlib
import dataclasses
from contextlib import AbstractContextManager

import optuna
from torch import Tensor

from strop.anatomy import WeightSite, editable_shapes
from strop.errors import UsageError
from strop.interventions import applied_interventions
from strop.proving import Assignment, BudgetSpentError, CandidateSpace, Choice, Journal, Trial, describe_trial
from strop.searching.decompositions import HeldDecompositions
from strop.searching.effects import refuse_unknown_effects
from strop.searching.kept_vectors import keep_vectors, kept_vectors
from strop.searching.sharpening.guides import guide_of
from strop.searching.sharpening.plan import SharpenPlan
from strop.searching.sharpening.spectrum import Spectrum, direction_of

HALVINGS = 2
"""How often a step that does not help, or goes too far, is halved before the sharpening stops."""


@dataclasses.dataclass(frozen=True, eq=False)
class _Step:
    """A step that was taken: its size, what it scored on select, and where it led."""

    size: float
    trial: Trial
    spectrum: Spectrum


class Sharpener:
    """Moves all singular values a little, step by step: train says which way, select how far and how often.

    Args:
        given: what is to be improved, and from where.
        plan: the settings.

    Raises:
        TaskError: a split is empty, or a row does not fit.
        SiteError: the model has no such layer or matrix type.
        UsageError: the model is not of the kind the task is for.
    """

    def __init__(self, given: Assignment, plan: SharpenPlan) -> None:
        self.given = given
        self.plan = plan
        shapes = editable_shapes(
            given.model, given.anatomy, layers=plan.layers, matrix_types=plan.matrix_types, stack=plan.stack
        )
        self._ranks = {site: min(shape) for site, shape in shapes.items()}
        self.guide = guide_of(given, plan)
        self._gradients = 0
        self._fisher: dict[WeightSite, Tensor] | None = None

    @property
    def space(self) -> CandidateSpace[float]:
        """How its candidates, the sizes of a round's step, are kept in a study."""
        return CandidateSpace(
            method="sharpen",
            distributions={"size": optuna.distributions.FloatDistribution(0.0, 1.0)},
            spell=lambda size: {"size": size},
            read=lambda settings: float(settings["size"]),
        )

    def choose(self, journal: Journal) -> Choice:
        """Return the changes of singular values that help on the select split, behind what the run begins with.

        Args:
            journal: where finished trials and decisions are kept.
        """
        self.journal = journal
        given = self.given
        unedited = journal.measure_without_candidate(self.guide.select)
        self.guide.prepare(journal.progress)
        with given.start.applied(given.model, anatomy=given.anatomy, decompose=given.decompose):
            self._decompositions = HeldDecompositions(
                given.model, given.anatomy, list(self._ranks), decompose=given.decompose
            )
            started = journal.measure_without_candidate(self.guide.select, started=True) if given.start else None
            self._fisher = self.guide.fisher(
                list(self._ranks), decompositions=self._decompositions, progress=journal.progress
            )
            best, chosen = self._best_of_all_steps(started or unedited)
        interventions, tensors = chosen.interventions()
        read = journal.tokens_of(lambda _: self.guide.select.tokens)
        return Choice(
            given.start.then(interventions, tensors),
            unedited,
            best,
            tokens=read + self._gradients * self.guide.tokens + self.guide.fisher_tokens,
            start=given.start,
            started=started,
        )

    def _best_of_all_steps(self, start: Trial) -> tuple[Trial, Spectrum]:
        spectrum = Spectrum.unchanged(self._ranks)
        best, chosen, loss, size = start, spectrum, start.loss, self.plan.size
        for number in range(1, self.plan.steps + 1):
            try:
                step = self._step(number, spectrum, size, loss)
            except BudgetSpentError as spent:
                self.journal.say(str(spent))
                break
            if step is None:
                break
            spectrum, loss, size = step.spectrum, step.trial.loss, step.size
            self.journal.say(f"step {number}, of {size:.2%}: {describe_trial(step.trial)}")
            if step.trial.merit > best.merit:
                best, chosen = step.trial, spectrum
        if best is start and not self.journal.is_spent:
            self.journal.say("no step beats what there is; nothing is changed")
        return best, chosen

    def _step(self, number: int, spectrum: Spectrum, size: float, loss: float) -> _Step | None:
        """Return the step that a round takes, or None where none helps within the guards' bounds."""
        if self.journal.is_spent and self.journal.recall(f"step {number} has begun") is None:
            raise BudgetSpentError(f"The budget of {self.journal.budget} is spent.")
        self.journal.remember(f"step {number} has begun", True)
        direction = self._direction(number, spectrum)
        if number == 1 and not any(bool(own.any()) for own in direction.values()):
            raise UsageError("The gradient is zero for every singular value: the examples teach nothing.")
        lowers = False
        for halving in range(HALVINGS + 1):
            after = spectrum.after(direction, size / 2**halving, in_units=self.plan.precondition == "sign")
            with self._applied(after):
                trial = self._scored(number, size / 2**halving, begun=halving == 0)
                if trial.loss < loss:
                    lowers = True
                    if self.journal.admits(trial.key):
                        return _Step(size / 2**halving, trial, after)
        why = "what lowers the loss drifts too far; --drift bounds that" if lowers else "no size of it lowers the loss"
        self.journal.say(f"step {number}: {why}; stopping")
        return None

    def _scored(self, number: int, size: float, *, begun: bool) -> Trial:
        """Return what select says of a step of some size, which is on the model; the first look ends what its gradient began."""
        select = self.guide.select
        self.journal.progress.start(f"step {number}: trying {size:.2%}", select.steps)
        key = self.journal.key(size, round=number, examples=select.example_count)
        return self.journal.measure(key, lambda: select.evaluate(progress=self.journal.progress), begun=begun)

    def _direction(self, number: int, spectrum: Spectrum) -> dict[WeightSite, Tensor]:
        gradient = self._gradient(number, spectrum)
        return direction_of(gradient, self.plan.precondition, fisher=self._fisher, damping=self.plan.damping)

    def _gradient(self, number: int, spectrum: Spectrum) -> dict[WeightSite, Tensor]:
        """Return g = ∂loss/∂d at d: minus what removing each component would do to the loss, to first order."""
        self._gradients += 1
        folder = self.journal.folder
        path = folder / "gradients" / f"{number}.safetensors" if folder is not None else None
        kept = kept_vectors(path, self._ranks) if path is not None else None
        if kept is not None:
            return kept
        with self._applied(spectrum):
            effects = self.guide.effects(
                list(self._ranks),
                decompositions=self._decompositions,
                stage=f"step {number}: asking the gradient",
                progress=self.journal.progress,
            )
        if number == 1:
            refuse_unknown_effects(effects)
        gradient = {site: -own.loss_change for site, own in effects.items()}
        if path is not None:
            keep_vectors(path, gradient)
        return gradient

    def _applied(self, spectrum: Spectrum) -> AbstractContextManager[object]:
        """Put a spectrum on the model, which holds what the run begins with, for a `with` block."""
        interventions, tensors = spectrum.interventions()
        if not interventions:
            return contextlib.nullcontext()
        given = self.given
        return applied_interventions(
            given.model, interventions, anatomy=given.anatomy, tensors=tensors, decompose=given.decompose
        )
