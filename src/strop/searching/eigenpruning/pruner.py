"""Prune components, round after round, while that lowers the loss; let select say how far it was worth going."""

import contextlib
import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from strop.anatomy import Anatomy, MatrixType, WeightSite, editable_shapes
from strop.anatomy.sites import ATTENTION
from strop.interventions import SingularValuePruning, applied_interventions
from strop.interventions.indices import parse_indices, spell_indices
from strop.linalg import full_precision
from strop.proving import Assignment, BudgetSpentError, CandidateSpace, Choice, Journal, Trial, TrialKey, describe_trial
from strop.scoring import ClassScorer, Evaluation, Scorer
from strop.searching.asking import effects_on
from strop.searching.averages import mean_inputs
from strop.searching.decompositions import HeldDecompositions
from strop.searching.effects import Effects, refuse_lone_examples, refuse_unknown_effects
from strop.searching.eigenpruning.plan import PrunePlan
from strop.searching.eigenpruning.steps import (
    PruningStep,
    Removal,
    removal_by,
    smaller_fraction,
    space_of,
    steps_of,
)
from strop.searching.fisher import FISHER_TEXTS, OwnTexts, fisher_information, priced
from strop.searching.guided_examples import GuidedExamples
from strop.searching.label_effects import refuse_what_labels_lack
from strop.searching.unseen_inputs import refuse_unseen_inputs

RUNGS_BELOW = 2
"""How many rungs of the ladder of fractions below a round's winner the next round begins."""


@dataclasses.dataclass(frozen=True, eq=False)
class _State:
    """A pruning as far as it has gone: what is removed, and what that leaves behind."""

    removed: Removal
    biases: Mapping[WeightSite, Tensor]

    @property
    def count(self) -> int:
        return sum(len(indices) for indices in self.removed.values())


@dataclasses.dataclass(frozen=True, eq=False)
class _Round:
    """What a round found: the best step, what it scored, and the state it leaves."""

    step: PruningStep
    trial: Trial
    state: _State


class Pruner:
    """Removes components step by step: train says which and how many, select how many steps were worth taking.

    Args:
        given: what is to be improved, and from where.
        plan: the settings.

    Raises:
        TaskError: a split is empty, or a row does not fit.
        SiteError: the model has no such layer or matrix type.
        UsageError: there is one example only to swap with itself.
    """

    def __init__(self, given: Assignment, plan: PrunePlan) -> None:
        self.given = given
        self.plan = plan
        whole = editable_shapes(
            given.model, given.anatomy, layers=plan.layers, matrix_types=plan.matrix_types, stack=plan.stack
        )
        self.sites = list(whole) if plan.whole_matrices else _by_head(given.anatomy, whole)
        self.examples = GuidedExamples.of(
            given,
            guide_limit=plan.effect_examples,
            select_limit=plan.select_limit,
            seed=plan.seed,
            counterfactuals=plan.counterfactual == "pairs",
        )
        self._fisher: dict[WeightSite, Tensor] | None = None
        """What removing each component costs elsewhere, where that counts."""
        refuse_unseen_inputs(
            given.anatomy,
            self.sites,
            counterfactual=plan.counterfactual,
            reduction=plan.reduction,
            steps=plan.steps,
            bias=plan.bias,
        )
        if given.task.labels is not None:
            refuse_what_labels_lack(plan.effects)
        if plan.counterfactual == "roll":
            refuse_lone_examples(self.examples.guide)

    @property
    def space(self) -> CandidateSpace[PruningStep]:
        """How its candidates are kept in a study."""
        return space_of(steps_of(self.plan, tuple(dict.fromkeys(site.matrix_type for site in self.sites))))

    def choose(self, journal: Journal) -> Choice:
        """Return the prunings that help on the select split, behind what the pruning begins with.

        Args:
            journal: where finished trials and decisions are kept.
        """
        self.journal = journal
        given = self.given
        unedited = journal.measure_without_candidate(self.examples.select)
        own = OwnTexts.of(given, count=FISHER_TEXTS, progress=journal.progress) if self.plan.price_weight else None
        with given.start.applied(given.model, anatomy=given.anatomy, decompose=given.decompose):
            self._decompositions = HeldDecompositions(given.model, given.anatomy, self.sites, decompose=given.decompose)
            started = journal.measure_without_candidate(self.examples.select, started=True) if given.start else None
            if own is not None:
                self._fisher = fisher_information(
                    given, own, self.sites, decompositions=self._decompositions, progress=journal.progress
                )
            best, chosen = self._best_of_all_rounds(started or unedited)
        prunings, tensors = self._interventions(chosen)
        return Choice(
            given.start.then(prunings, tensors),
            unedited,
            best,
            tokens=self._tokens() + (own.tokens if own is not None else 0),
            start=given.start,
            started=started,
        )

    def _best_of_all_rounds(self, start: Trial) -> tuple[Trial, _State]:
        state = _State({}, {})
        best, chosen = start, state
        last: PruningStep | None = None
        lowest, since = start.loss, 0
        if start.accuracy == 1:
            self.journal.say("every select example is answered already: only the loss can gain")
        for number in range(1, self.plan.iterate + 1):
            try:
                found = self._round(number, state, last)
            except BudgetSpentError as spent:
                self.journal.say(str(spent))
                break
            if found is None:
                self.journal.say(f"round {number}: nothing is left whose removal is predicted to help; stopping")
                break
            last, trial, state = found.step, found.trial, found.state
            self.journal.say(f"round {number}: {last}, {state.count:,} in all: {describe_trial(trial)}")
            if trial.merit > best.merit and self._admits(trial, state):
                best, chosen = trial, state
            lowest, since = (trial.loss, 0) if trial.loss < lowest else (lowest, since + 1)
            if since == self.plan.patience:
                self.journal.say(f"no lower loss in {since} rounds; stopping")
                break
        if chosen.count == 0 and not self.journal.is_spent:
            self.journal.say("nothing tried beats what there is; nothing is pruned")
        return best, chosen

    def _admits(self, trial: Trial, state: _State) -> bool:
        if not self.journal.guards:
            return True
        with self._applied(state):
            return self.journal.admits(trial.key)

    def _round(self, number: int, state: _State, last: PruningStep | None) -> _Round | None:
        """Return what a round found, or None where no step takes anything.

        Steps shrink slowly from round to round, so those far below the last winner are left out.
        """
        kept = self.journal.recall(f"removed by round {number}")
        if kept is not None:
            return self._round_again(number, state, kept)
        self._begin(number)
        with self._applied(state):
            effects = self._effects(number)
            means = self._means()
        states = self._states_by_step(state, effects, means, last)
        if not states:
            return None
        if len(states) > self.plan.finalists:
            states = self._screened(number, states)
        scored: dict[PruningStep, Trial] = {}
        with contextlib.suppress(BudgetSpentError):  # then the best of those that were scored is the round's
            for step, after in states.items():
                scored[step] = self._score(number, step, after, self.examples.select)
        if not scored:
            raise self._spent
        step = max(scored, key=lambda one: scored[one].merit[1])
        if len(scored) == len(states):  # else whoever resumes with a larger budget scores the others
            self.journal.remember(f"removed by round {number}", self._spelled(step, states[step]))
        return _Round(step, scored[step], states[step])

    def _begin(self, number: int) -> None:
        """Note that a round has begun, so that one that had when a run was killed is gone on with.

        Raises:
            BudgetSpentError: it has not, and the budget is spent.
        """
        name = f"round {number} has begun"
        if self.journal.recall(name) is None:
            if self.journal.is_spent:
                raise self._spent
            self.journal.remember(name, True)

    @property
    def _spent(self) -> BudgetSpentError:
        return BudgetSpentError(f"The budget of {self.journal.budget} is spent.")

    def _screened(self, number: int, states: Mapping[PruningStep, _State]) -> dict[PruningStep, _State]:
        """Return the steps with the lowest loss on the screen; of each kind, ever larger ones are tried while they help.

        A small step lowers the loss and a large one raises it, so two in a row that are worse than the best end a kind.
        """
        losses: dict[PruningStep, float] = {}
        for _, of_kind in itertools.groupby(states, key=lambda step: (step.scope, step.matrix_types)):
            lowest, worse = math.inf, 0
            for step in of_kind:
                losses[step] = -self._score(number, step, states[step], self.examples.screen).merit[1]
                lowest, worse = (losses[step], 0) if losses[step] < lowest else (lowest, worse + 1)
                if worse == 2:
                    break
        return {step: states[step] for step in sorted(losses, key=losses.__getitem__)[: self.plan.finalists]}

    def _round_again(self, number: int, state: _State, kept: Mapping[str, Any]) -> _Round:
        """Return what a round of an earlier sitting found."""
        step = self.journal.space.read(kept["step"])
        by_name = {str(site): site for site in self.sites}
        removed = {by_name[name]: parse_indices(indices) for name, indices in kept["removed"].items()}
        with self._applied(state):
            means = self._means()
        trial = self.journal.find(self._key(number, step, self.examples.select))
        assert trial is not None  # it was finished before the round was remembered
        return _Round(step, trial, self._after(state, removed, means))

    def _spelled(self, step: PruningStep, state: _State) -> dict[str, Any]:
        removed = {str(site): spell_indices(indices) for site, indices in state.removed.items()}
        return {"step": dict(self.journal.space.spell(step)), "removed": removed}

    def _effects(self, number: int) -> dict[WeightSite, Effects]:
        effects = effects_on(
            self.examples.guide,
            self.sites,
            decompose=self.given.decompose,
            plan=self.plan.effects,
            decompositions=self._decompositions,
            stage=f"round {number}: asking the gradient",
            progress=self.journal.progress,
        )
        if number == 1:
            refuse_unknown_effects(effects)  # later there is something to stop with
        return effects if self._fisher is None else priced(effects, self._fisher, self.plan.price_weight)

    def _means(self) -> dict[WeightSite, Tensor]:
        if self.plan.bias == "none":
            return {}
        return mean_inputs(self.examples.guide, self.sites, at_each_position=self.plan.bias == "position")

    def _states_by_step(
        self,
        state: _State,
        effects: Mapping[WeightSite, Effects],
        means: Mapping[WeightSite, Tensor],
        last: PruningStep | None,
    ) -> dict[PruningStep, _State]:
        """Return what each step leads to, those that take nothing or the same as a smaller one left out."""
        fractions = self.plan.fractions
        smallest = smaller_fraction(fractions, last.fraction, RUNGS_BELOW) if last is not None else 0.0
        considered = tuple(dict.fromkeys(site.matrix_type for site in self.sites))
        states: dict[PruningStep, _State] = {}
        seen = [state.removed]
        for step in steps_of(self.plan, considered):
            if step.fraction < smallest:
                continue
            removed = removal_by(step, effects, state.removed, allow_harmful=self.plan.allow_harmful)
            if removed not in seen:
                seen.append(removed)
                states[step] = self._after(state, removed, means)
        return states

    @full_precision()
    def _after(self, state: _State, removed: Removal, means: Mapping[WeightSite, Tensor]) -> _State:
        biases = dict(state.biases)
        for site, indices in removed.items() if means else ():
            if indices != state.removed.get(site):
                left, right = self._decompositions(site).factors_of(indices)
                mean = means[site].to(left)
                biases[site] = (mean @ right.T) @ left.T
        return _State(removed, biases)

    def _interventions(
        self, state: _State
    ) -> tuple[tuple[SingularValuePruning, ...], tuple[Mapping[str, Tensor], ...]]:
        """Return a state as interventions with the tensors their recipe carries."""
        prunings = tuple(
            SingularValuePruning(site, indices, self.plan.bias) for site, indices in sorted(state.removed.items())
        )
        return prunings, tuple({"bias": state.biases[p.site]} if p.site in state.biases else {} for p in prunings)

    @contextlib.contextmanager
    def _applied(self, state: _State) -> Iterator[None]:
        prunings, tensors = self._interventions(state)
        with contextlib.ExitStack() as stack:
            if prunings:
                factors = [self._factors(pruning) for pruning in prunings]
                carried = [{**own, **more} for own, more in zip(tensors, factors, strict=True)]
                stack.enter_context(
                    applied_interventions(self.given.model, prunings, anatomy=self.given.anatomy, tensors=carried)
                )
            yield

    def _factors(self, pruning: SingularValuePruning) -> dict[str, Tensor]:
        left, right = self._decompositions(pruning.site).factors_of(pruning.removed)
        return {"left": left, "right": right}

    def _key(self, number: int, step: PruningStep, scorer: Scorer | ClassScorer) -> TrialKey:
        split = self.examples.guide_split if scorer is self.examples.guide else "select"
        return self.journal.key(step, round=number, examples=scorer.example_count, split=split)

    def _score(self, number: int, step: PruningStep, state: _State, scorer: Scorer | ClassScorer) -> Trial:
        self.journal.progress.start(f"round {number}: {step}", scorer.steps)

        def score() -> Evaluation:
            with self._applied(state):
                return scorer.evaluate(progress=self.journal.progress)

        return self.journal.measure(self._key(number, step, scorer), score)

    def _tokens(self) -> int:
        """Return the tokens of all trials and of the gradient's passes, as if each had run the whole model."""
        guide, select, rounds = self.examples.guide, self.examples.select, set()

        def tokens(key: TrialKey) -> int:
            if key.candidate:
                rounds.add(key.round)
            return select.tokens if key.split == "select" and key.examples == select.example_count else guide.tokens

        of_trials = self.journal.tokens_of(tokens)
        extra = (self.plan.counterfactual in ("mean", "pairs")) + (self.plan.bias != "none")
        return of_trials + len(rounds) * guide.tokens * (self.plan.steps + extra)


def _by_head(anatomy: Anatomy, shapes: Mapping[WeightSite, tuple[int, int]]) -> list[WeightSite]:
    """Return attention matrices head by head, and whole those that heads do not make up, and all others."""
    parts: list[WeightSite] = []
    for site, (outputs, inputs) in shapes.items():
        heads = anatomy.heads_of(site.matrix_type, site.stack) if site.matrix_type in ATTENTION else 0
        headed = inputs if site.matrix_type is MatrixType.OUTPUT else outputs
        if heads and headed == heads * anatomy.stacks[site.stack].head_size:
            parts += [dataclasses.replace(site, head=head) for head in range(heads)]
        else:
            parts.append(site)
    return parts
