"""What a report of a run shows only once a model was asked: other wordings, and what removed components say."""

import dataclasses
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from strop.analysis.paraphrases import facts_in_words
from strop.analysis.removed_components import removed_components
from strop.anatomy import Family, WeightSite
from strop.interventions import RankReduction
from strop.progress import SILENT, Progress
from strop.recipe import Recipe
from strop.tasks import Task


@dataclasses.dataclass(frozen=True, eq=False)
class RunAnalyses:
    """Which of the analyses that need a model fit the choice of a run; none of them is false."""

    task: Task
    recipe: Recipe
    limit: int | None
    """Ask a random sample of this many held-out examples: as many as the run measured are the same ones."""
    worded: bool
    """The task has other wordings, so each fact is asked in all of them."""
    site: WeightSite | None
    """The matrix whose smallest components are asked: the one that was reduced most; None where none was."""
    left_out: tuple[str, ...]
    """What is not asked, and why, a sentence each."""

    @classmethod
    def fitting(cls, task: Task, recipe: Recipe, *, limit: int | None = None) -> "RunAnalyses":
        """Return those that fit, before a model is loaded.

        Args:
            task: that the run was about.
            recipe: that it chose.
            limit: held-out examples to ask.
        """
        worded = task.score != "perplexity" and any(own.paraphrases for own in task.examples("test", limit=limit))
        reduced = [own for own in recipe.interventions if isinstance(own, RankReduction)]
        site = min(reduced, key=lambda own: own.rank_fraction).site if reduced and task.labels is None else None
        if not recipe.interventions:
            reason = "The run edits nothing, so there is nothing to ask a model about."
            return cls(task, recipe, limit, worded=False, site=None, left_out=(reason,))
        left = []
        if not worded:
            left.append(f"Task {task.name} has no paraphrases, so no fact was asked in other words.")
        if site is None:
            left.append("The run reduces no matrix to a lower rank, so no removed components were asked.")
        return cls(task, recipe, limit, worded=worded, site=site, left_out=tuple(left))

    def __bool__(self) -> bool:
        return self.worded or self.site is not None

    def ask(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        run: str | Path,
        *,
        family: Family | None = None,
        progress: Progress = SILENT,
    ) -> None:
        """Ask a model and keep what it says in the run's folder, where a report shows it.

        Args:
            model: as it is without the recipe; it is left so.
            tokenizer: its fast tokenizer.
            run: the folder.
            family: the spelling of an architecture Strop does not know.
            progress: told of each batch.
        """
        if self.worded:
            facts_in_words(
                model, tokenizer, self.task, self.recipe, limit=self.limit, run=run, family=family, progress=progress
            )
        if self.site is not None:
            removed_components(
                model, tokenizer, self.task, self.recipe, site=self.site, limit=self.limit, run=run, family=family,
                progress=progress,
            )  # fmt: skip
