"""Prune components, round after round, while that lowers the loss; let select say how far it was worth going."""

import contextlib
import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from strop.anatomy import Anatomy, WeightSite
from strop.interventions import Intervention, SingularValuePruning, applied_interventions
from strop.interventions.base import Decompose
from strop.interventions.indices import parse_indices, spell_indices
from strop.runs import Trial
from strop.runs.proof import Choice, Journal, in_words
from strop.scoring import Scorer
from strop.searching.bases import Bases
from strop.searching.bites import Bite, Removal, bites_of, refuse_unknown_effects, removal_by, smaller_fraction
from strop.searching.effects import Effects, measure_effects, refuse_lone_examples
from strop.searching.means import mean_inputs
from strop.searching.prune_plan import PrunePlan
from strop.tasks import Task

RUNGS_BELOW = 2
"""How many rungs of the ladder of fractions below a round's winner the next round begins."""


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
        """Those that bites are screened on: the guide, or select itself where the guide is all of it."""
        whole = self.guide_split == "select" and self.guide.example_count == self.select.example_count
        return self.select if whole else self.guide

    @classmethod
    def of(
        cls,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        task: Task,
        plan: PrunePlan,
        *,
        anatomy: Anatomy,
    ) -> "PruneExamples":
        """Encode a task's train and select splits.

        Args:
            model: as it is before any edit.
            tokenizer: the model's.
            task: whose splits are used.
            plan: its limits, seed and counterfactual say which examples, and what they must be like.
            anatomy: the model's.

        Raises:
            TaskError: a split is empty, a row does not fit the model, or it lacks the counterfactual that is wanted.
            UsageError: there is one example only to swap with itself.
        """
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


@dataclasses.dataclass(frozen=True, eq=False)
class _State:
    """A pruning as far as it has gone: what is removed, and what that leaves behind."""

    removed: Removal
    biases: Mapping[WeightSite, Tensor]

    @property
    def count(self) -> int:
        return sum(len(indices) for indices in self.removed.values())


class Pruner:
    """Removes components bite by bite: train says which and how many, select how many bites were worth taking.

    Args:
        examples: to be guided and to choose by.
        plan: the settings.
        sites: to be considered.
        start: interventions the pruning begins on top of.
        start_tensors: what they carry.
        journal: where finished trials and decisions are kept.
        decompose: how to come by decompositions.
    """

    def __init__(
        self,
        examples: PruneExamples,
        plan: PrunePlan,
        sites: Sequence[WeightSite],
        journal: Journal,
        *,
        decompose: Decompose,
        start: Sequence[Intervention] = (),
        start_tensors: Sequence[Mapping[str, Tensor]] = (),
    ) -> None:
        self.examples = examples
        self.plan = plan
        self.sites = sites
        self.journal = journal
        self.decompose = decompose
        self.start = tuple(start)
        self.start_tensors = tuple(start_tensors) or ({},) * len(self.start)

    def choose(self) -> Choice:
        """Return the prunings that help on the select split, on top of what they begin with."""
        unedited = self._score_as_is(0, "the model as it is") if self.start else None
        model, anatomy = self.examples.select.model, self.examples.select.anatomy
        with applied_interventions(
            model, self.start, anatomy=anatomy, tensors=self.start_tensors, decompose=self.decompose
        ):
            self._bases = Bases(model, anatomy, self.sites, decompose=self.decompose)
            start = self._score_as_is(1, "the recipe to begin with" if self.start else "no edit")
            best, chosen = self._best_of_all_rounds(start)
        prunings, tensors = self._interventions(chosen)
        return Choice(
            (*self.start, *prunings),
            unedited or start,
            best,
            tokens=self._tokens(),
            tensors=(*self.start_tensors, *tensors),
            started_from=self.start,
            start=start if self.start else None,
        )

    def _best_of_all_rounds(self, start: Trial[Bite]) -> tuple[Trial[Bite], _State]:
        state = _State({}, {})
        best, chosen, winner = start, state, start
        lowest, since = start.loss, 0
        if start.accuracy == 1:
            self.journal.say("every select example is answered already: only the loss can gain")
        for number in range(1, self.plan.iterate + 1):
            found = self._round(number, state, winner)
            if found is None:
                self.journal.say(f"round {number}: nothing is left whose removal is predicted to help; stopping")
                break
            winner, state = found
            self.journal.say(f"round {number}: {winner.candidate}, {state.count:,} in all: {in_words(winner)}")
            if winner.merit > best.merit:
                best, chosen = winner, state
            lowest, since = (winner.loss, 0) if winner.loss < lowest else (lowest, since + 1)
            if since == self.plan.patience:
                self.journal.say(f"no lower loss in {since} rounds; stopping")
                break
        if chosen.count == 0:
            self.journal.say("nothing tried beats what there is; nothing is pruned")
        return best, chosen

    def _round(self, number: int, state: _State, last: Trial[Bite]) -> tuple[Trial[Bite], _State] | None:
        """Return the round's best bite and the state it leaves, or None where no bite takes anything.

        Bites shrink slowly from round to round, so those far below the last winner are left out.
        """
        kept = self.journal.book.recall(f"removed by round {number}")
        if kept is not None:
            return self._round_again(number, state, kept)
        with self._applied(state):
            effects = self._effects(number)
            means = self._means()
        states = self._states_by_bite(state, effects, means, last)
        if not states:
            return None
        if len(states) > self.plan.finalists:
            states = self._screened(number, states)
        scored = [self._score(number, bite, after, self.examples.select) for bite, after in states.items()]
        winner = max(scored, key=lambda trial: trial.merit[1])
        assert winner.candidate is not None
        after = states[winner.candidate]
        self.journal.book.remember(f"removed by round {number}", self._spelled(winner.candidate, after))
        return winner, after

    def _screened(self, number: int, states: Mapping[Bite, _State]) -> dict[Bite, _State]:
        """Return the bites with the lowest loss on the screen; of each kind, ever larger ones are tried while they help.

        A small bite lowers the loss and a large one raises it, so two in a row that are worse than the best end a kind.
        """
        losses: dict[Bite, float] = {}
        for _, of_kind in itertools.groupby(states, key=lambda bite: (bite.scope, bite.matrix_types)):
            lowest, worse = math.inf, 0
            for bite in of_kind:
                losses[bite] = -self._score(number, bite, states[bite], self.examples.screen).merit[1]
                lowest, worse = (losses[bite], 0) if losses[bite] < lowest else (lowest, worse + 1)
                if worse == 2:
                    break
        return {bite: states[bite] for bite in sorted(losses, key=losses.__getitem__)[: self.plan.finalists]}

    def _round_again(self, number: int, state: _State, kept: Mapping[str, Any]) -> tuple[Trial[Bite], _State]:
        """Return what a round of an earlier sitting found."""
        bite = self.journal.book.space.read(kept["bite"])
        by_name = {str(site): site for site in self.sites}
        removed = {by_name[name]: parse_indices(indices) for name, indices in kept["removed"].items()}
        with self._applied(state):
            means = self._means()
        trial = self.journal.book.find(number, bite, self.examples.select.example_count)
        assert trial is not None
        return trial, self._after(state, removed, means)

    def _spelled(self, bite: Bite, state: _State) -> dict[str, Any]:
        removed = {str(site): spell_indices(indices) for site, indices in state.removed.items()}
        return {"bite": self.journal.book.space.spell(bite), "removed": removed}

    def _effects(self, number: int) -> dict[WeightSite, Effects]:
        effects = measure_effects(
            self.examples.guide,
            self.sites,
            decompose=self.decompose,
            plan=self.plan.effects,
            bases=self._bases,
            stage=f"round {number}: asking the gradient",
            progress=self.journal.progress,
        )
        if number == 1:
            refuse_unknown_effects(effects)  # later there is something to stop with
        return effects

    def _means(self) -> dict[WeightSite, Tensor]:
        if self.plan.bias == "none":
            return {}
        return mean_inputs(self.examples.guide, self.sites, at_each_position=self.plan.bias == "position")

    def _states_by_bite(
        self,
        state: _State,
        effects: Mapping[WeightSite, Effects],
        means: Mapping[WeightSite, Tensor],
        last: Trial[Bite],
    ) -> dict[Bite, _State]:
        """Return what each bite leads to, those that take nothing or the same as a smaller one left out."""
        fractions = self.plan.fractions
        smallest = smaller_fraction(fractions, last.candidate.fraction, RUNGS_BELOW) if last.candidate else 0.0
        considered = tuple(dict.fromkeys(site.matrix_type for site in self.sites))
        states: dict[Bite, _State] = {}
        seen = [state.removed]
        for bite in bites_of(self.plan, considered):
            if bite.fraction < smallest:
                continue
            removed = removal_by(bite, effects, state.removed, allow_harmful=self.plan.allow_harmful)
            if removed not in seen:
                seen.append(removed)
                states[bite] = self._after(state, removed, means)
        return states

    def _after(self, state: _State, removed: Removal, means: Mapping[WeightSite, Tensor]) -> _State:
        biases = dict(state.biases)
        for site, indices in removed.items() if means else ():
            if indices != state.removed.get(site):
                left, right = self._bases(site).factors_of(indices)
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
                scorer = self.examples.select
                stack.enter_context(
                    applied_interventions(scorer.model, prunings, anatomy=scorer.anatomy, tensors=carried)
                )
            yield

    def _factors(self, pruning: SingularValuePruning) -> dict[str, Tensor]:
        left, right = self._bases(pruning.site).factors_of(pruning.removed)
        return {"left": left, "right": right}

    def _score(self, number: int, bite: Bite, state: _State, scorer: Scorer) -> Trial[Bite]:
        split = self.examples.guide_split if scorer is self.examples.guide else "select"
        known: Trial[Bite] | None = self.journal.book.find(number, bite, scorer.example_count, split=split)
        if known is not None:
            return known
        self.journal.progress.start(f"round {number}: {bite}", scorer.steps)
        with self._applied(state):
            evaluation = scorer.evaluate(progress=self.journal.progress)
        return self.journal.record(number, bite, evaluation, split=split)

    def _score_as_is(self, number: int, what: str) -> Trial[Bite]:
        scorer = self.examples.select
        known: Trial[Bite] | None = self.journal.book.find(number, None, scorer.example_count)
        if known is None:
            self.journal.progress.start(f"scoring {what}", scorer.steps)
            known = self.journal.record(number, None, scorer.evaluate(progress=self.journal.progress))
        self.journal.say(f"{what}: {in_words(known)}")
        return known

    def _tokens(self) -> int:
        """Return the tokens of all trials and of the gradient's passes, as if each had run the whole model."""
        trials = self.journal.book.trials
        rounds = {trial.round for trial in trials if trial.candidate is not None}
        guide, select = self.examples.guide, self.examples.select
        of_trials = sum(
            select.tokens if trial.split == "select" and trial.examples == select.example_count else guide.tokens
            for trial in trials
        )
        extra = (self.plan.counterfactual in ("mean", "pairs")) + (self.plan.bias != "none")
        return of_trials + len(rounds) * guide.tokens * (self.plan.steps + extra)
