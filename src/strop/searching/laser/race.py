"""Race rank reductions: all of them on a few select examples, and on more only those that may still be the best."""

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from strop.interventions import RankReduction
from strop.proving import Assignment, BudgetSpentError, Journal, Trial, TrialKey, describe_trial
from strop.proving.per_example import PerExample
from strop.scoring import ClassScorer, Evaluation, Scorer
from strop.searching.laser.candidates import best_of
from strop.searching.laser.plan import SearchPlan
from strop.searching.laser.race_budget import Means
from strop.searching.laser.shares import Shares
from strop.searching.laser.sweep import sweep
from strop.statistics import ruled_out

LEVEL = 0.05
"""The chance that the tests of a race, all together, rule out the best of its candidates."""

Runner = RankReduction | None
"""A candidate; None is "no edit"."""
Standings = dict[Runner, Trial]
"""The trials of all that are in the running, on the same examples."""


class Race:
    """Races among rank reductions, one for each edit that is looked for.

    Each share of the select examples is twice the one before and holds it. After each, those are left that another one, "no edit"
    among them, surely beats on it (`ruled_out`); where a budget does not reach for all others, those that did least are left too,
    and that is told. Whoever ends is scored on all examples. What is decided follows from finished trials alone, so a run
    that goes on decides the same.

    Args:
        given: what is to be improved.
        plan: the settings.

    Raises:
        TaskError: a row does not fit the model.
    """

    def __init__(self, given: Assignment, plan: SearchPlan) -> None:
        self._given, self._plan = given, plan
        self._shares = Shares(given, given.task.examples("select", limit=plan.select_limit), seed=plan.seed)
        self._keys: set[TrialKey] = set()
        self.cut_short = False
        """Whether one that was not ruled out was left for the budget's sake."""

    def tokens(self, key: TrialKey) -> int | None:
        """Return the tokens that were read for a trial of a race; None where it is of none.

        Args:
            key: of the trial.
        """
        return self._shares.tokens(key.examples) if key in self._keys else None

    def run(self, journal: Journal, candidates: Sequence[RankReduction], *, number: int) -> dict[RankReduction, Trial]:
        """Return the trials, on all select examples, of the candidates that nothing ruled out before.

        Args:
            journal: where trials are kept.
            candidates: to race.
            number: of the edit that is looked for, from 1.
        """
        self._journal, self._number = journal, number
        means = Means(self._given, self._plan, journal, self._shares, number=number)
        racing = self._drawn(candidates, means)
        level = LEVEL / (max(1, len(racing) - 1) * max(1, len(self._shares.ends) - 1))
        standings: Standings = {}
        for place, examples in enumerate(self._shares.ends):
            racing = [own for own in racing if own is not None or examples < self._shares.count]  # it was scored on all
            if not any(racing):
                return {}
            scored = self._scored(racing, place, standings, lambda: means.is_over)
            if len(scored) < len(racing):
                scored = self._leader_alone(scored, place, standings)
            standings = scored
            if examples < self._shares.count:
                racing = self._going_on(standings, place, level, means)
        return {own: trial for own, trial in standings.items() if own is not None}

    def _drawn(self, candidates: Sequence[RankReduction], means: Means) -> list[Runner]:
        """Return "no edit" and all candidates up the layers, or as many as the budget reaches for, drawn at random."""
        in_order: list[Runner] = [*sorted(candidates, key=lambda own: (own.site, own.rank_fraction))]
        room = means.room(0, len(in_order) + 1) - 1
        if room < len(in_order):
            self.cut_short = True
            drawn = np.random.default_rng((self._plan.seed, self._number)).permutation(len(in_order))[: max(room, 0)]
            in_order = [in_order[place] for place in sorted(drawn)]
            self._say(
                f"the budget of {self._journal.budget}, the held-out measurement included, reaches for {len(in_order)} of "
                f"{len(candidates)} candidates, drawn at random"
            )
        return [None, *in_order]

    def _scored(
        self, racing: Sequence[Runner], place: int, before: Mapping[Runner, Trial], is_over: Callable[[], bool]
    ) -> Standings:
        """Return the trials on a share, as far as the budget reaches; only what the share adds is scored.

        Args:
            racing: up the layers.
            place: of the share.
            before: their trials on the share before.
            is_over: whether to stop.
        """
        journal, shares = self._journal, self._shares
        keys = journal.keys(racing, round=self._number, examples=shares.ends[place])
        self._keys.update(keys.values())
        known = journal.study.finished(keys.values())
        finished = {own: known[key] for own, key in keys.items() if key in known}
        waiting = [own for own in racing if own not in finished]
        if waiting:
            journal.enqueue(keys[own] for own in waiting)
            stage = f"edit {self._number}: racing {len(waiting)} candidates on {shares.ends[place]} examples"
            journal.progress.start(stage, len(waiting))
        with contextlib.suppress(BudgetSpentError):
            for own, score in self._scores(shares.scorers[place], waiting):
                if is_over():
                    break
                earlier = before[own].each if own in before else None
                finished[own] = journal.measure(
                    keys[own],
                    functools.partial(self._on_whole_share, score, earlier),
                    evaluations=shares.new(place) / shares.count,
                    keep_each=True,
                )
                journal.progress.advance()
        return {own: finished[own] for own in racing if own in finished}

    def _scores(
        self, scorer: Scorer | ClassScorer, waiting: Sequence[Runner]
    ) -> Iterator[tuple[Runner, Callable[[], Evaluation]]]:
        if None in waiting:
            yield None, scorer.evaluate
        yield from sweep(scorer, [own for own in waiting if own is not None], decompose=self._given.decompose)

    def _on_whole_share(self, score: Callable[[], Evaluation], earlier: PerExample | None) -> Evaluation:
        new = PerExample.of(score())
        return self._shares.evaluation(new if earlier is None else earlier.then(new))

    def _leader_alone(self, scored: Standings, place: int, before: Standings) -> Standings:
        """Return the trials to go on with where there was no time to score all on a share: that of whoever led before.

        Args:
            scored: those there was time for; on all examples they count too.
            place: of the share.
            before: trials on the share before.
        """
        self.cut_short = True
        on = before or scored
        alive = [own for own in on if on[own].each is not None]
        if not alive:
            return {}
        leader = max(alive, key=lambda own: on[own].merit)
        self._say(f"the time is up, and {_name(leader)} is ahead; it alone goes on")
        alone = self._scored([leader], place, before, lambda: False)
        return alone if place + 1 < len(self._shares.ends) else {**scored, **alone}

    def _going_on(self, standings: Standings, place: int, level: float, means: Means) -> list[Runner]:
        """Return who goes on to the next share: whoever is not ruled out on this one, as far as the budget reaches."""
        alive = {own: trial for own, trial in standings.items() if trial.each is not None}
        if len(alive) < 2:
            return list(alive)
        each = [trial.each for trial in alive.values() if trial.each is not None]
        out = ruled_out(
            np.array([own.loss for own in each]),
            [trial.merit[0] for trial in alive.values()],
            level=level,
            by_answers=each[0].correct is not None,
            answers=self._answers(list(alive.values())),
            groups=self._shares.groups[: len(each[0].loss)],
        )
        left = {own: alive[own] for own, beaten in zip(alive, out, strict=True) if not beaten}
        leader = max(left, key=lambda own: left[own].merit)
        self._say(
            f"on {self._shares.ends[place]} examples {len(standings) - len(left)} of {len(standings)} are ruled out; "
            f"{_name(leader)} is ahead: {describe_trial(left[leader])}"
        )
        room = max(1, means.room(place + 1, len(left)))
        if len(left) <= room:
            return list(left)
        self.cut_short = True
        kept = set(best_of(left, room))
        self._say(f"{len(left) - room} that are not ruled out are left for the budget of {self._journal.budget}")
        return [own for own in left if own in kept]

    def _answers(self, trials: Sequence[Trial]) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]] | None:
        """Return (trials, examples) of right and wrong answers where their mean is what counts."""
        metric = trials[0].metric
        if self._plan.objective != "average" or (metric is not None and metric[0] != "accuracy"):
            return None
        right = [trial.each.correct for trial in trials if trial.each is not None and trial.each.correct is not None]
        return np.array(right, dtype=np.float64) if len(right) == len(trials) else None

    def _say(self, line: str) -> None:
        self._journal.say(f"edit {self._number}: {line}")


def _name(runner: Runner) -> str:
    return "no edit" if runner is None else str(runner)
