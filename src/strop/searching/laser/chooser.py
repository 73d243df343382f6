"""Choose rank reductions, one after the other, while the select split says they help."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor

from strop.anatomy import WeightSite, editable_shapes
from strop.interventions import RankReduction, applied_interventions
from strop.proving import Assignment, CandidateSpace, Choice, Journal, Trial, TrialKey, describe_trial
from strop.scoring import ClassScorer, Scorer, scorer_of
from strop.searching.asking import effects_on
from strop.searching.decompositions import HeldDecompositions
from strop.searching.fisher import FISHER_TEXTS, OwnTexts, fisher_information, priced
from strop.searching.laser.candidates import Shapes, all_candidates, best_of, predicted_candidates, space_of
from strop.searching.laser.plan import LASER_RANK_FRACTIONS, SearchPlan
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
    """

    def __init__(self, given: Assignment, plan: SearchPlan) -> None:
        self.given = given
        self.plan = plan
        self.shapes: Shapes = editable_shapes(
            given.model, given.anatomy, layers=plan.layers, matrix_types=plan.matrix_types, stack=plan.stack
        )
        self.select = SelectExamples.of(given, plan)
        self._on_model: tuple[RankReduction, ...] = ()
        """What was added so far: it is on the model while a round's candidates are tried."""
        self._fisher: dict[WeightSite, Tensor] | None = None
        """What removing each component costs elsewhere, where that counts."""

    @property
    def space(self) -> CandidateSpace[RankReduction]:
        """How its candidates are kept in a study."""
        return space_of(self.shapes, self.given.anatomy.layers_of(self.plan.stack))

    def choose(self, journal: Journal) -> Choice:
        """Return the edits that help on the select split, behind those the search begins with.

        Args:
            journal: where finished trials and decisions are kept.
        """
        self.journal = journal
        given = self.given
        unedited = journal.measure_without_candidate(self.select.every)
        own = OwnTexts.of(given, count=FISHER_TEXTS, progress=journal.progress) if self.plan.price_weight else None
        with given.start.applied(given.model, anatomy=given.anatomy, decompose=given.decompose):
            started = journal.measure_without_candidate(self.select.every, started=True) if given.start else None
            if own is not None:
                sites = list(self.shapes)
                held = HeldDecompositions(given.model, given.anatomy, sites, decompose=given.decompose)
                self._fisher = fisher_information(given, own, sites, decompositions=held, progress=journal.progress)
            chosen, best = self._add_edits(started or unedited)
        return Choice(
            given.start.then(chosen),
            unedited,
            best,
            tokens=self._tokens() + (own.tokens if own is not None else 0),
            start=given.start,
            started=started,
        )

    def _add_edits(self, best: Trial) -> tuple[list[RankReduction], Trial]:
        """Add edits to the model as it stands, the best of a round first, until nothing beats what there is."""
        chosen: list[RankReduction] = []
        for number in range(1, self.plan.edit_limit + 1):
            free = {site: shape for site, shape in self.shapes.items() if site not in {e.site for e in chosen}}
            if not free:
                break
            given, self._on_model = self.given, tuple(chosen)
            with applied_interventions(given.model, chosen, anatomy=given.anatomy, decompose=given.decompose):
                found = self._winner(self._try_all(number, free), best)
            if found is None:
                spent = f"the budget of {self.journal.budget} is spent"
                why = spent if self.journal.is_spent else "nothing tried beats what there is"
                self.journal.say(f"edit {number}: {why}; stopping")
                break
            edit, best = found
            chosen.append(edit)
            rank = edit.rank(self.shapes[edit.site])
            self.journal.say(f"edit {number}: {edit} (rank {rank}): {describe_trial(best)}")
        return chosen, best

    def _winner(self, trials: Mapping[RankReduction, Trial], best: Trial) -> tuple[RankReduction, Trial] | None:
        """Return the best candidate that beats what there is and that no guard refuses."""
        given, journal = self.given, self.journal
        for place, candidate in enumerate(sorted(trials, key=lambda edit: trials[edit].merit, reverse=True)):
            if trials[candidate].merit <= best.merit:
                return None
            if not journal.guards:
                return candidate, trials[candidate]
            if place > 0 and journal.is_spent:  # those before it were refused
                journal.say(
                    f"the budget of {journal.budget} is spent, and the guards refused all they were asked about"
                )
                return None
            with applied_interventions(given.model, [candidate], anatomy=given.anatomy, decompose=given.decompose):
                if journal.admits(trials[candidate].key):
                    return candidate, trials[candidate]
        return None

    def _tokens(self) -> int:
        """Return the tokens of all trials and of the gradient's samples, as if each had run the whole model."""
        select, rounds = self.select, set()

        def tokens(key: TrialKey) -> int:
            if key.candidate:
                rounds.add(key.round)
            return select.of_size(key.examples).tokens

        of_trials = self.journal.tokens_of(tokens)
        return of_trials + (len(rounds) * select.guide.tokens if self.plan.strategy == "gradient" else 0)

    def _try_all(self, number: int, shapes: Shapes) -> dict[RankReduction, Trial]:
        if self.plan.strategy == "exhaustive":
            everything = all_candidates(shapes, self.plan.rank_fractions or LASER_RANK_FRACTIONS)
            return self._try(number, everything, self.select.every, "trying")
        proposed = self._propose(number, shapes)
        screen, every = self.select.screen, self.select.every
        if len(proposed) > self.plan.finalists and 2 * screen.example_count <= every.example_count:
            screened = self._try(number, proposed, screen, "screening")
            proposed = best_of(screened, self.plan.finalists) if len(screened) == len(proposed) else []
        return self._try(number, proposed, every, "trying")

    def _propose(self, number: int, shapes: Shapes) -> list[RankReduction]:
        """Return what the gradient proposes, or nothing where the budget is spent before it was asked."""
        name = f"candidates of edit {number}"
        kept = self.journal.recall(name)
        if kept is not None:
            return [RankReduction(WeightSite.from_json(site), share) for site, share in kept]
        if self.journal.is_spent:
            return []
        effects = effects_on(
            self.select.guide,
            list(shapes),
            decompose=self.given.decompose,
            stage=f"edit {number}: asking the gradient",
            progress=self.journal.progress,
        )
        if self._fisher is not None:
            effects = priced(effects, self._fisher, self.plan.price_weight)
        proposed = predicted_candidates(
            effects, shapes, top_matrices=self.plan.top_matrices, rank_fractions=self.plan.rank_fractions
        )
        self.journal.remember(name, [[c.site.to_json(), c.rank_fraction] for c in proposed])
        return proposed

    def _try(
        self, number: int, candidates: Sequence[RankReduction], scorer: Scorer | ClassScorer, verb: str
    ) -> dict[RankReduction, Trial]:
        """Return the trials of candidates, up the layers, as far as the budget reaches."""
        journal = self.journal
        in_order = sorted(candidates, key=lambda candidate: (candidate.site, candidate.rank_fraction))
        keys = {c: journal.key(c, round=number, examples=scorer.example_count) for c in in_order}
        finished = journal.study.finished(keys.values())
        waiting = journal.affordable([c for c in in_order if keys[c] not in finished])
        if waiting and not journal.is_spent:
            journal.progress.start(f"edit {number}: {verb} {len(waiting)} candidates", len(waiting))
            edits = [edit.to_json(self.shapes[edit.site]) for edit in self._on_model]
            with journal.in_turn([keys[c] for c in waiting], portion=layer_of, edits=edits) as turns:
                score_in_turn(turns, {keys[c]: c for c in waiting}, scorer, decompose=self.given.decompose)
            finished = journal.study.finished(keys.values())
        return {c: finished[keys[c]] for c in in_order if keys[c] in finished}  # the same after a resume
