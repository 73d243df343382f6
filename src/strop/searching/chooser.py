"""Choose edits, one after the other, while the select split says they help."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from strop.anatomy import Anatomy, MatrixType, WeightSite
from strop.interventions import RankReduction, WeightIntervention, applied_interventions
from strop.interventions.base import Decompose
from strop.runs import Trial
from strop.runs.proof import Choice, Journal, in_words
from strop.scoring import Evaluation, Scorer
from strop.searching.candidates import all_candidates, best_of, predicted_candidates
from strop.searching.effects import measure_effects
from strop.searching.plan import LASER_RANK_FRACTIONS, SearchPlan
from strop.searching.sweep import sweep
from strop.tasks import Task


@dataclasses.dataclass(frozen=True)
class SelectExamples:
    """The select split as a search uses it."""

    every: Scorer
    """All examples the choice is made by."""
    screen: Scorer
    """A sample of them that candidates are screened on."""
    guide: Scorer
    """The same sample as the gradient is taken over it: where there are choices, the right ones only; never generated."""

    @classmethod
    def of(
        cls,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        task: Task,
        plan: SearchPlan,
        *,
        anatomy: Anatomy,
    ) -> "SelectExamples":
        """Encode a task's select split.

        Args:
            model: as it is before any edit.
            tokenizer: the model's.
            task: whose select split is used.
            plan: its `select_limit`, `gradient_examples` and `seed` say which examples.
            anatomy: the model's.

        Raises:
            TaskError: the split is empty, or a row does not fit the model.
        """
        select = task.examples("select", limit=plan.select_limit)
        order = np.random.default_rng(plan.seed).permutation(len(select))[: plan.gradient_examples]
        sample = [select[index] for index in order]
        screen = Scorer(model, tokenizer, sample, task.score, generate=task.generate, anatomy=anatomy)
        by_answers = task.score in ("choice", "generate")
        guide = Scorer(model, tokenizer, sample, "exact", anatomy=anatomy) if by_answers else screen
        every = Scorer(model, tokenizer, select, task.score, generate=task.generate, anatomy=anatomy)
        return cls(every, screen, guide)


class Chooser:
    """Adds one edit after the other while the select split says it helps.

    Args:
        select: the examples to choose by.
        plan: the settings.
        shapes: of the matrices to consider, by site.
        journal: where finished trials and decisions are kept.
        decompose: how to come by decompositions.
    """

    def __init__(
        self,
        select: SelectExamples,
        plan: SearchPlan,
        shapes: Mapping[WeightSite, tuple[int, int]],
        journal: Journal,
        *,
        decompose: Decompose,
    ) -> None:
        self.select = select
        self.plan = plan
        self.shapes = shapes
        self.journal = journal
        self.decompose = decompose

    def choose(self) -> Choice:
        """Return the edits that help on the select split."""
        unedited = best = self._unedited()
        chosen: list[RankReduction] = []
        for number in range(1, self.plan.max_edits + 1):
            free = {site: shape for site, shape in self.shapes.items() if site not in {e.site for e in chosen}}
            if not free:
                break
            with applied_interventions(
                self.select.every.model, chosen, anatomy=self.select.every.anatomy, decompose=self.decompose
            ):
                winner = max(self._try_all(number, free), key=lambda trial: trial.merit)
            if winner.merit <= best.merit or winner.candidate is None:
                self.journal.say(f"edit {number}: nothing tried beats what there is; stopping")
                break
            edit, best = winner.candidate, winner
            chosen.append(edit)
            rank = edit.rank(self.shapes[edit.site])
            self.journal.say(f"edit {number}: {edit} (rank {rank}): {in_words(winner)}")
        return Choice(tuple(chosen), unedited, best, tokens=self._tokens())

    def _tokens(self) -> int:
        """Return the tokens of all trials and of the gradient's samples, as if each had run the whole model."""
        rounds = {trial.round for trial in self.journal.book.trials if trial.candidate is not None}
        of_trials = sum(
            (self.select.every if trial.examples == self.select.every.example_count else self.select.screen).tokens
            for trial in self.journal.book.trials
        )
        return of_trials + (len(rounds) * self.select.guide.tokens if self.plan.strategy == "gradient" else 0)

    def _unedited(self) -> Trial[RankReduction]:
        known = self.journal.book.find(1, None, self.select.every.example_count)
        if known is None:
            self.journal.progress.start("scoring the model as it is", self.select.every.steps)
            known = self.journal.record(1, None, self.select.every.evaluate(progress=self.journal.progress))
        self.journal.say(f"no edit: {in_words(known)}")
        return known

    def _try_all(self, number: int, shapes: Mapping[WeightSite, tuple[int, int]]) -> list[Trial[RankReduction]]:
        if self.plan.strategy == "exhaustive":
            everything = all_candidates(shapes, self.plan.rank_fractions or LASER_RANK_FRACTIONS)
            return self._try(number, everything, self.select.every, "trying")
        proposed = self._propose(number, shapes)
        if (
            len(proposed) > self.plan.finalists
            and 2 * self.select.screen.example_count <= self.select.every.example_count
        ):
            proposed = best_of(self._try(number, proposed, self.select.screen, "screening"), self.plan.finalists)
        return self._try(number, proposed, self.select.every, "trying")

    def _propose(self, number: int, shapes: Mapping[WeightSite, tuple[int, int]]) -> list[RankReduction]:
        key = f"candidates of edit {number}"
        kept = self.journal.book.recall(key)
        if kept is not None:
            return [RankReduction(WeightSite(layer, MatrixType(name)), share) for layer, name, share in kept]
        effects = measure_effects(
            self.select.guide,
            list(shapes),
            decompose=self.decompose,
            stage=f"edit {number}: asking the gradient",
            progress=self.journal.progress,
        )
        proposed = predicted_candidates(
            effects, shapes, top_matrices=self.plan.top_matrices, rank_fractions=self.plan.rank_fractions
        )
        self.journal.book.remember(key, [[c.site.layer, str(c.site.matrix_type), c.rank_fraction] for c in proposed])
        return proposed

    def _try(
        self, number: int, candidates: Sequence[RankReduction], scorer: Scorer, verb: str
    ) -> list[Trial[RankReduction]]:
        finished = {c: trial for c in candidates if (trial := self.journal.book.find(number, c, scorer.example_count))}
        waiting = [c for c in candidates if c not in finished]

        def report(candidate: WeightIntervention, evaluation: Evaluation) -> None:
            assert isinstance(candidate, RankReduction)
            finished[candidate] = self.journal.record(number, candidate, evaluation)

        if waiting:
            self.journal.progress.start(f"edit {number}: {verb} {len(waiting)} candidates", len(waiting))
            sweep(scorer, waiting, decompose=self.decompose, report=report, progress=self.journal.progress)
        in_order = sorted(finished, key=lambda candidate: (candidate.site, candidate.rank_fraction))
        return [finished[candidate] for candidate in in_order]  # the same after a resume
