"""A task's examples as a pruning uses them."""

import dataclasses

import numpy as np

from strop.proving import Assignment
from strop.scoring import Scorer
from strop.searching.effects import refuse_lone_examples
from strop.searching.eigenpruning.plan import PrunePlan


@dataclasses.dataclass(frozen=True)
class PruneExamples:
    """A task's examples as a pruning uses them."""

    guide: Scorer
    """Those that effects are estimated on; where there are choices, the right ones only; never generated."""
    guide_split: str
    """`train`, or `select` where there is no train."""
    select: Scorer
    """All examples the choice is made by."""

    @property
    def screen(self) -> Scorer:
        """Those that steps are screened on: the guide, or select itself where the guide is all of it."""
        whole = self.guide_split == "select" and self.guide.example_count == self.select.example_count
        return self.select if whole else self.guide

    @classmethod
    def of(cls, given: Assignment, plan: PrunePlan) -> "PruneExamples":
        """Encode a task's train and select splits.

        Args:
            given: the model and the task.
            plan: its limits, seed and counterfactual say which examples, and what they must be like.

        Raises:
            TaskError: a split is empty, a row does not fit the model, or it lacks the counterfactual that is wanted.
            UsageError: there is one example only to swap with itself.
        """
        model, tokenizer, task, anatomy = given.model, given.tokenizer, given.task, given.anatomy
        select = task.examples("select", limit=plan.select_limit)
        split = "train" if task.counts.get("train") else "select"
        sample = task.examples("train") if split == "train" else select
        order = np.random.default_rng(plan.seed).permutation(len(sample))[: plan.effect_examples]
        guide = Scorer(
            model,
            tokenizer,
            [sample[index] for index in order],
            "exact" if task.score in ("choice", "generate") else task.score,
            anatomy=anatomy,
            counterfactuals=plan.counterfactual == "pairs",
            fewest=2,
        )
        if plan.counterfactual == "roll":
            refuse_lone_examples(guide)
        every = Scorer(model, tokenizer, select, task.score, generate=task.generate, anatomy=anatomy)
        return cls(guide, split, every)
