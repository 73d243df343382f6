"""What tells a sharpening which way to go, and what resists: the examples of a task, asked of the kind of model it is for."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from strop.anatomy import WeightSite
from strop.linalg import SingularValueDecomposition
from strop.progress import Progress
from strop.proving import Assignment
from strop.scoring import ClassScorer, Scorer
from strop.searching.asking import effects_on
from strop.searching.effect_plan import EffectPlan
from strop.searching.effects import Effects, refuse_unknown_effects
from strop.searching.fisher import OwnTexts, fisher_information
from strop.searching.guided_examples import GuidedExamples, sampled
from strop.searching.label_effects import measure_label_effects
from strop.searching.sharpening.plan import SharpenPlan
from strop.searching.sharpening.spectrum import NEEDS_FISHER

Decompositions = Callable[[WeightSite], SingularValueDecomposition]


class Guide(Protocol):
    """Examples that a gradient is taken over, and others to choose by."""

    @property
    def select(self) -> Scorer | ClassScorer:
        """All examples the choice is made by."""
        ...

    @property
    def tokens(self) -> int:
        """Tokens of one pass over what the gradient is taken over."""
        ...

    @property
    def fisher_tokens(self) -> int:
        """Tokens of one pass over what the Fisher information is taken over; 0 where none is asked for."""
        ...

    def prepare(self, progress: Progress) -> None:
        """Ask what is to be asked of the model as it is, before anything is put on it."""
        ...

    def effects(
        self, sites: Sequence[WeightSite], *, decompositions: Decompositions, stage: str, progress: Progress
    ) -> Mapping[WeightSite, Effects]:
        """Return each component's effect on the mean loss of the model as it stands."""
        ...

    def fisher(
        self, sites: Sequence[WeightSite], *, decompositions: Decompositions, progress: Progress
    ) -> dict[WeightSite, Tensor] | None:
        """Return the Fisher information of each singular value's change; None where none is asked for."""
        ...


@dataclasses.dataclass
class AnswerGuide:
    """A language model's answers, and the text it writes itself."""

    given: Assignment
    plan: SharpenPlan
    own: OwnTexts | None = None

    def __post_init__(self) -> None:
        plan = self.plan
        self.examples = GuidedExamples.of(
            self.given, guide_limit=plan.examples, select_limit=plan.select_limit, seed=plan.seed
        )

    @property
    def select(self) -> Scorer | ClassScorer:
        """All examples the choice is made by."""
        return self.examples.select

    @property
    def tokens(self) -> int:
        """Tokens of one pass over what the gradient is taken over."""
        return self.examples.guide.tokens

    @property
    def fisher_tokens(self) -> int:
        """Tokens of the texts it wrote."""
        return self.own.tokens if self.own is not None else 0

    def prepare(self, progress: Progress) -> None:
        """Let the model write the texts whose resistance is asked for."""
        if self.plan.precondition in NEEDS_FISHER:
            self.own = OwnTexts.of(self.given, count=self.plan.fisher_texts, progress=progress)

    def effects(
        self, sites: Sequence[WeightSite], *, decompositions: Decompositions, stage: str, progress: Progress
    ) -> Mapping[WeightSite, Effects]:
        """Return each component's effect on the mean loss of the answers."""
        decompose = self.given.decompose
        return effects_on(
            self.examples.guide,
            sites,
            decompose=decompose,
            decompositions=decompositions,
            stage=stage,
            progress=progress,
        )

    def fisher(
        self, sites: Sequence[WeightSite], *, decompositions: Decompositions, progress: Progress
    ) -> dict[WeightSite, Tensor] | None:
        """Return the Fisher information of the model's own text."""
        if self.own is None:
            return None
        return fisher_information(self.given, self.own, sites, decompositions=decompositions, progress=progress)


@dataclasses.dataclass
class LabelGuide:
    """A classifier's labels, and those it would give itself: it writes no text.

    Raises:
        TaskError: a split is empty, or a row does not fit.
        UsageError: the model is no classifier, or one of other labels.
    """

    given: Assignment
    plan: SharpenPlan

    def __post_init__(self) -> None:
        given, plan, labels = self.given, self.plan, self.given.task.labels
        assert labels is not None  # who builds it has seen to it
        _, guide, select = sampled(
            given.task, guide_limit=plan.examples, select_limit=plan.select_limit, seed=plan.seed
        )
        self._guide, self.select = (
            ClassScorer(given.model, given.tokenizer, examples, labels, anatomy=given.anatomy)
            for examples in (guide, select)
        )

    @property
    def tokens(self) -> int:
        """Tokens of one pass over what the gradient is taken over."""
        return self._guide.tokens

    @property
    def fisher_tokens(self) -> int:
        """Tokens of the same texts once more."""
        return self._guide.tokens if self.plan.precondition in NEEDS_FISHER else 0

    def prepare(self, progress: Progress) -> None:
        """Do nothing: a classifier writes no text."""

    def effects(
        self, sites: Sequence[WeightSite], *, decompositions: Decompositions, stage: str, progress: Progress
    ) -> Mapping[WeightSite, Effects]:
        """Return each component's effect on the mean loss of the labels."""
        return measure_label_effects(self._guide, sites, decompositions=decompositions, stage=stage, progress=progress)

    def fisher(
        self, sites: Sequence[WeightSite], *, decompositions: Decompositions, progress: Progress
    ) -> dict[WeightSite, Tensor] | None:
        """Return that of the labels the model itself gives the texts: F_i = E_x E_{y ~ p(·|x)} (∂ log p(y|x) / ∂d_i)².

        To second order KL(p ‖ p_d) = ½ Σ_ij F_ij d_i d_j, in nats per text. A label of each text is drawn by the plan's seed.
        """
        if self.plan.precondition not in NEEDS_FISHER:
            return None
        found = measure_label_effects(
            self._guide,
            sites,
            decompositions=decompositions,
            plan=EffectPlan(reduction="squares"),
            drawn_by=torch.Generator().manual_seed(self.plan.seed),
            stage="asking its own labels what they resist",
            progress=progress,
        )
        refuse_unknown_effects(found)
        return {site: effects.score for site, effects in found.items()}


def guide_of(given: Assignment, plan: SharpenPlan) -> Guide:
    """Return what guides a sharpening of a task: labels where it has them, else answers.

    Args:
        given: the model and the task.
        plan: how many examples.

    Raises:
        TaskError: a split is empty, or a row does not fit the model.
        UsageError: the model is not of the kind the task is for.
    """
    return LabelGuide(given, plan) if given.task.labels is not None else AnswerGuide(given, plan)
