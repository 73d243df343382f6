"""A task's examples as a method uses them that a gradient guides: some to ask, others to choose by."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from strop.proving import Assignment
from strop.scoring import ClassScorer, Scorer, scorer_of
from strop.tasks import Example, Task


@dataclasses.dataclass(frozen=True)
class GuidedExamples:
    """A task's examples as a method uses them that a gradient guides."""

    guide: Scorer | ClassScorer
    """Those that effects are estimated on; where there are choices, the right ones only; never generated."""
    guide_split: str
    """`train`, or `select` where there is no train."""
    select: Scorer | ClassScorer
    """All examples the choice is made by."""

    @property
    def screen(self) -> Scorer | ClassScorer:
        """Those that candidates are screened on: the guide, or select itself where the guide is all of it."""
        whole = self.guide_split == "select" and self.guide.example_count == self.select.example_count
        return self.select if whole else self.guide

    @classmethod
    def of(
        cls,
        given: Assignment,
        *,
        guide_limit: int,
        select_limit: int | None,
        seed: int,
        counterfactuals: bool = False,
    ) -> "GuidedExamples":
        """Encode a task's train and select splits.

        Args:
            given: the model and the task.
            guide_limit: most examples to ask, a random sample of train; of select where there is no train.
            select_limit: most examples to choose by; None for all.
            seed: of the sample.
            counterfactuals: encode the guide's counterfactual prompts too.

        Raises:
            TaskError: a split is empty, a row does not fit the model, or it lacks the counterfactual that is wanted.
        """
        model, tokenizer, task, anatomy = given.model, given.tokenizer, given.task, given.anatomy
        split, sample, select = sampled(task, guide_limit=guide_limit, select_limit=select_limit, seed=seed)
        every = scorer_of(model, tokenizer, task, select, anatomy=anatomy)
        if task.labels is not None:
            return cls(scorer_of(model, tokenizer, task, sample, anatomy=anatomy), split, every)
        guide = Scorer(
            model,
            tokenizer,
            sample,
            "exact" if task.score in ("choice", "generate") else task.score,
            anatomy=anatomy,
            counterfactuals=counterfactuals,
            fewest=2,
        )
        return cls(guide, split, every)


def sampled(
    task: Task, *, guide_limit: int, select_limit: int | None, seed: int
) -> tuple[str, Sequence[Example], Sequence[Example]]:
    """Return the split a gradient is taken over, a random sample of it, and the examples to choose by.

    Args:
        task: with a select split; the gradient is taken over train where it has one, else over select.
        guide_limit: most examples of the sample.
        select_limit: most examples to choose by; None for all.
        seed: of the sample.

    Raises:
        TaskError: there is no select split.
    """
    select = task.examples("select", limit=select_limit)
    split = "train" if task.counts.get("train") else "select"
    every = task.examples("train") if split == "train" else select
    order = np.random.default_rng(seed).permutation(len(every))[:guide_limit]
    return split, [every[index] for index in order], select
