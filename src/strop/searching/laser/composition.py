"""Several rank reductions of different matrices, what tries more of them, and which of those tried may be taken."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager

from strop.interventions import RankReduction
from strop.proving import Journal, Trial, describe_trial
from strop.scoring import ClassScorer, Scorer
from strop.searching.laser.candidates import Shapes, best_of
from strop.searching.laser.plan import SearchPlan
from strop.statistics import Merit


@dataclasses.dataclass(frozen=True)
class Composition:
    """Edits of different matrices, and what the model scored with them on all select examples, or on a sample."""

    edits: tuple[RankReduction, ...]
    """In the order they were taken, which changes nothing."""
    trial: Trial

    @property
    def merit(self) -> Merit:
        """What is maximised."""
        return self.trial.merit


@dataclasses.dataclass(frozen=True)
class Step:
    """A composition that is not tried yet, as an edit on top of others."""

    edits: tuple[RankReduction, ...]
    """All of them, in the order in which a recipe is to hold them."""
    last: RankReduction
    """The one that is tried on top of the others."""

    @property
    def below(self) -> tuple[RankReduction, ...]:
        """The others."""
        return tuple(edit for edit in self.edits if edit != self.last)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trying:
    """What a composition is made with."""

    plan: SearchPlan
    shapes: Shapes
    """Of the matrices to consider, by site."""
    journal: Journal
    every: Scorer | ClassScorer
    """All select examples."""
    screen: Scorer | ClassScorer
    """A sample of them."""
    on: Callable[[Sequence[RankReduction]], AbstractContextManager[None]]
    """Has edits on the model for a block, beneath whatever is tried in it."""
    propose: Callable[[], list[RankReduction]]
    """Returns all edits of the model as it stands that the strategy would try."""
    try_all: Callable[[int, Shapes], dict[RankReduction, Trial]]
    """Looks for an edit of the given number among matrices, as the strategy does."""
    try_each: Callable[[int, Sequence[RankReduction], Scorer | ClassScorer, str], dict[RankReduction, Trial]]
    """Tries edits on examples, as far as the budget reaches; the verb is what it is called in the progress."""

    def has_room(self, edits: Sequence[RankReduction]) -> bool:
        """Return whether another matrix may be edited."""
        limit = self.plan.edit_limit
        return (limit is None or len(edits) < limit) and bool(self.left(edits))

    def left(self, edits: Sequence[RankReduction]) -> Shapes:
        """Return the matrices that are not edited yet."""
        taken = {edit.site for edit in edits}
        return {site: shape for site, shape in self.shapes.items() if site not in taken}

    def try_steps(self, steps: Sequence[Step], verb: str) -> list[Composition]:
        """Return the compositions some steps lead to, as far as the budget reaches; of many only those a sample speaks for.

        Args:
            steps: to try; those on top of the same edits are tried together.
            verb: what trying them is called in the progress.
        """
        count = self.plan.finalists
        if len(steps) > count and 2 * self.screen.example_count <= self.every.example_count:
            screened = dict(self._tried(steps, self.screen, f"screening, {verb}"))
            steps = best_of(screened, count) if len(screened) == len(steps) else []
        return [Composition(step.edits, trial) for step, trial in self._tried(steps, self.every, verb)]

    def _tried(self, steps: Sequence[Step], scorer: Scorer | ClassScorer, verb: str) -> list[tuple[Step, Trial]]:
        found: list[tuple[Step, Trial]] = []
        for below in dict.fromkeys(step.below for step in steps):
            here = {step.last: step for step in steps if step.below == below}
            with self.on(below):
                trials = self.try_each(len(below) + 1, list(here), scorer, verb)
            found += [(here[edit], trial) for edit, trial in trials.items()]
        return found

    def admitted(self, found: Iterable[Composition], *, count: int = 1) -> list[Composition]:
        """Return the best compositions that no guard refuses, the best first.

        Once the budget is spent, no more than one is asked about that was not asked about before.

        Args:
            found: those that may be taken.
            count: how many are wanted at most.
        """
        journal, taken, asked = self.journal, list[Composition](), 0
        for one in sorted(found, key=lambda composition: composition.merit, reverse=True):
            if len(taken) == count:
                break
            if journal.guards and not journal.guards.has_read(one.trial.key):
                if asked and journal.is_spent:
                    journal.say(f"the budget of {journal.budget} is spent, and the guards were asked about no more")
                    break
                asked += 1
            if not journal.guards or self._is_admitted(one):
                taken.append(one)
        return taken

    def _is_admitted(self, composition: Composition) -> bool:
        with self.on(composition.edits):
            return self.journal.admits(composition.trial.key)

    def tell(self, what: str, edit: RankReduction, trial: Trial) -> None:
        """Tell that an edit is taken."""
        self.journal.say(f"{what}: {edit} (rank {edit.rank(self.shapes[edit.site])}): {describe_trial(trial)}")

    def tell_end(self, edits: Sequence[RankReduction]) -> None:
        """Tell why there is no further edit."""
        spent = f"the budget of {self.journal.budget} is spent"
        why = spent if self.journal.is_spent else "nothing tried beats what there is"
        self.journal.say(f"edit {len(edits) + 1}: {why}; stopping")
