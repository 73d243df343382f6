"""Choose rank reductions, one after the other, while the select split says they help."""

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
from torch import Tensor

from strop.anatomy import WeightSite, editable_shapes
from strop.interventions import RankReduction, applied_interventions
from strop.proving import Assignment, CandidateSpace, Choice, Journal, Trial, TrialKey
from strop.scoring import ClassScorer, Scorer, scorer_of
from strop.searching.asking import effects_on
from strop.searching.decompositions import HeldDecompositions
from strop.searching.fisher import FISHER_TEXTS, OwnTexts, fisher_information, priced
from strop.searching.laser.beam import beam
from strop.searching.laser.candidates import (
    Shapes,
    all_candidates,
    best_of,
    in_subspaces,
    predicted_candidates,
    space_of,
)
from strop.searching.laser.composition import Composition, Trying
from strop.searching.laser.data_free import spectral_candidates
from strop.searching.laser.greedy import greedy
from strop.searching.laser.ordered import ordered
from strop.searching.laser.plan import LASER_RANK_FRACTIONS, SearchPlan
from strop.searching.laser.race import Race
from strop.searching.laser.together import layer_of, score_in_turn


@dataclasses.dataclass(frozen=True)
class SelectExamples:
    """The select split as a search uses it."""

    every: Scorer | ClassScorer
    """All examples the choice is made by."""
    screen: Scorer | ClassScorer
    """A sample of them that candidates are screened on."""
    guide: Scorer | ClassScorer
    """The same sample as the gradient is taken over it: where there are choices, the right ones only; never generated."""

    @classmethod
    def of(cls, given: Assignment, plan: SearchPlan) -> "SelectExamples":
        """Encode a task's select split.

        Args:
            given: the model and the task.
            plan: its `select_limit`, `gradient_examples` and `seed` say which examples.

        Raises:
            TaskError: the split is empty, or a row does not fit the model.
        """
        model, tokenizer, task, anatomy = given.model, given.tokenizer, given.task, given.anatomy
        select = task.examples("select", limit=plan.select_limit)
        order = np.random.default_rng(plan.seed).permutation(len(select))[: plan.gradient_examples]
        sample = [select[index] for index in order]
        screen = scorer_of(model, tokenizer, task, sample, anatomy=anatomy)
        by_answers = task.score in ("choice", "generate")
        guide = Scorer(model, tokenizer, sample, "exact", anatomy=anatomy) if by_answers else screen
        every = scorer_of(model, tokenizer, task, select, anatomy=anatomy)
        return cls(every, screen, guide)

    def of_size(self, examples: int) -> Scorer | ClassScorer:
        """Return the examples that a trial on so many was scored on."""
        return self.every if examples == self.every.example_count else self.screen


class ReductionChooser:
    """Adds one rank reduction after the other while the select split says it helps.

    Args:
        given: what is to be improved, and from where.
        plan: the settings.

    Raises:
        TaskError: a row does not fit the model.
        SiteError: the model has no such layer or matrix type.
        UsageError: a matrix has fewer features than there are to be subspaces.
    """

    def __init__(self, given: Assignment, plan: SearchPlan) -> None:
        self.given = given
        self.plan = plan
        self.shapes: Shapes = editable_shapes(
            given.model, given.anatomy, layers=plan.layers, matrix_types=plan.matrix_types, stack=plan.stack
        )
        self._in_subspaces([RankReduction(site, 0.0) for site in self.shapes])  # refuses what no matrix has room for
        self.select = SelectExamples.of(given, plan)
        self._race = Race(given, plan) if plan.strategy == "race" else None
        self._fisher: dict[WeightSite, Tensor] | None = None
        """What removing each component costs elsewhere, where that counts."""
        self._asked = 0
        """How often the gradient was asked."""

    @property
    def space(self) -> CandidateSpace[RankReduction]:
        """How its candidates are kept in a study."""
        return space_of(self.shapes, self.given.anatomy.layers_of(self.plan.stack))

    def choose(self, journal: Journal) -> Choice:
        """Return the edits that help on the select split, behind those the search begins with.

        Args:
            journal: where finished trials and decisions are kept.
        """
        self.journal, self._asked = journal, 0
        given = self.given
        unedited = journal.measure_without_candidate(self.select.every)
        own = OwnTexts.of(given, count=FISHER_TEXTS, progress=journal.progress) if self.plan.price_weight else None
        with given.start.applied(given.model, anatomy=given.anatomy, decompose=given.decompose):
            started = journal.measure_without_candidate(self.select.every, started=True) if given.start else None
            if own is not None:
                sites = list(self.shapes)
                held = HeldDecompositions(given.model, given.anatomy, sites, decompose=given.decompose)
                self._fisher = fisher_information(given, own, sites, decompositions=held, progress=journal.progress)
            found = self._compose(Composition((), started or unedited))
        return Choice(
            given.start.then(found.edits),
            unedited,
            found.trial,
            tokens=self._tokens() + (own.tokens if own is not None else 0),
            start=given.start,
            started=started,
            cut_short=self._race is not None and self._race.cut_short,
        )

    def _compose(self, begin: Composition) -> Composition:
        """Return the best composition of edits on the model as it stands, nothing added where nothing helps."""
        select = self.select
        trying = Trying(
            plan=self.plan,
            shapes=self.shapes,
            journal=self.journal,
            every=select.every,
            screen=select.screen,
            on=self._on,
            propose=self._considered,
            try_all=self._try_all,
            try_each=self._try,
        )
        composers = {"none": greedy, "greedy": greedy, "beam": beam, "ordered": ordered}
        return composers[self.plan.compose](trying, begin)

    @contextlib.contextmanager
    def _on(self, edits: Sequence[RankReduction]) -> Iterator[None]:
        """Have edits on the model for a block, beneath whatever is tried in it."""
        given, journal = self.given, self.journal
        with applied_interventions(given.model, edits, anatomy=given.anatomy, decompose=given.decompose):
            self.journal = dataclasses.replace(journal, below=tuple(edits))
            try:
                yield
            finally:
                self.journal = journal

    def _tokens(self) -> int:
        """Return the tokens of all trials and of the gradient's samples, as if each had run the whole model."""
        select = self.select

        def tokens(key: TrialKey) -> int:
            of_race = self._race.tokens(key) if self._race is not None else None
            return select.of_size(key.examples).tokens if of_race is None else of_race

        return self.journal.tokens_of(tokens) + self._asked * select.guide.tokens

    def _considered(self) -> list[RankReduction]:
        """Return all edits of the model as it stands that the strategy would try."""
        return self._everything(self.shapes) if self._tries_all else self._in_subspaces(self._propose(1, self.shapes))

    @property
    def _tries_all(self) -> bool:
        return self.plan.strategy in ("exhaustive", "race")

    def _everything(self, shapes: Shapes) -> list[RankReduction]:
        return self._in_subspaces(all_candidates(shapes, self.plan.rank_fractions or LASER_RANK_FRACTIONS))

    def _try_all(self, number: int, shapes: Shapes) -> dict[RankReduction, Trial]:
        if self._race is not None:
            return self._race.run(self.journal, self._everything(shapes), number=number)
        if self._tries_all:
            return self._try(number, self._everything(shapes), self.select.every, "trying")
        proposed = self._in_subspaces(self._propose(number, shapes))
        screen, every = self.select.screen, self.select.every
        if len(proposed) > self.plan.finalists and 2 * screen.example_count <= every.example_count:
            screened = self._try(number, proposed, screen, "screening")
            proposed = best_of(screened, self.plan.finalists) if len(screened) == len(proposed) else []
        return self._try(number, proposed, every, "trying")

    def _in_subspaces(self, candidates: Sequence[RankReduction]) -> list[RankReduction]:
        """Return plain candidates at every number of subspaces the plan asks for."""
        plan = self.plan
        return in_subspaces(candidates, self.shapes, subspaces=plan.subspaces, axis=plan.axis, partition=plan.partition)

    def _propose(self, number: int, shapes: Shapes) -> list[RankReduction]:
        """Return what the gradient or the spectra propose, or nothing where the budget is spent before they were asked."""
        name = f"candidates of edit {number}"
        kept = self.journal.recall(name)
        data_free = self.plan.strategy == "data-free"
        if kept is not None:
            self._asked += not data_free
            return [RankReduction(WeightSite.from_json(site), share) for site, share in kept]
        if self.journal.is_spent:
            return []
        self._asked += not data_free
        proposed = self._of_spectra(number, shapes) if data_free else self._of_gradient(number, shapes)
        self.journal.remember(name, [[c.site.to_json(), c.rank_fraction] for c in proposed])
        return proposed

    def _of_gradient(self, number: int, shapes: Shapes) -> list[RankReduction]:
        effects = effects_on(
            self.select.guide,
            list(shapes),
            decompose=self.given.decompose,
            stage=f"edit {number}: asking the gradient",
            progress=self.journal.progress,
        )
        if self._fisher is not None:
            effects = priced(effects, self._fisher, self.plan.price_weight)
        return predicted_candidates(
            effects, shapes, top_matrices=self.plan.top_matrices, rank_fractions=self.plan.rank_fractions
        )

    def _of_spectra(self, number: int, shapes: Shapes) -> list[RankReduction]:
        given, progress = self.given, self.journal.progress
        decompositions = HeldDecompositions(given.model, given.anatomy, list(shapes), decompose=given.decompose)
        progress.start(f"edit {number}: reading spectra", len(shapes))
        spectra = {}
        for site in shapes:
            spectra[site] = decompositions(site).singular_values
            progress.advance()
        found = spectral_candidates(
            spectra, shapes, top_matrices=self.plan.top_matrices, rank_fractions=self.plan.rank_fractions
        )
        if found.left_out:
            self.journal.say(f"edit {number}: {found.left_out}")
        return list(found.candidates)

    def _try(
        self, number: int, candidates: Sequence[RankReduction], scorer: Scorer | ClassScorer, verb: str
    ) -> dict[RankReduction, Trial]:
        """Return the trials of candidates, up the layers, as far as the budget reaches."""
        journal = self.journal
        in_order = sorted(candidates, key=lambda candidate: (candidate.site, candidate.rank_fraction))
        keys = journal.keys(in_order, round=number, examples=scorer.example_count)
        finished = journal.study.finished(keys.values())
        waiting = journal.affordable([c for c in in_order if keys[c] not in finished])
        if waiting and not journal.is_over_for_trial:
            journal.progress.start(f"edit {number}: {verb} {len(waiting)} candidates", len(waiting))
            edits = [edit.to_json(self.shapes[edit.site]) for edit in journal.below]
            with journal.in_turn([keys[c] for c in waiting], portion=layer_of, edits=edits) as turns:
                score_in_turn(turns, {keys[c]: c for c in waiting}, scorer, decompose=self.given.decompose)
            finished = journal.study.finished(keys.values())
        return {c: finished[keys[c]] for c in in_order if keys[c] in finished}  # the same after a resume
