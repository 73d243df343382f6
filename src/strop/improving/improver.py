"""Let methods race for a task by successive halving, and choose the best of them, or none."""

import dataclasses
import functools
import math
import shutil
from collections.abc import Sequence
from typing import Any

import optuna

from strop.errors import StropError, reason_in
from strop.improving.building import all_names, builders
from strop.improving.contenders import Contender, Share
from strop.improving.decision import Decision, by_merit
from strop.improving.entrant import LEAST_OF_A_TURN, Entrant
from strop.improving.entry import Entry, Found
from strop.improving.judge import Judge, kinds_of
from strop.improving.keeping import Kept
from strop.improving.pace import EXAMPLES
from strop.improving.plan import FEWEST_TO_LEARN_FROM, ImprovePlan
from strop.improving.preparing import MOST_TO_PREPARE, Prepared, admitted, prepare
from strop.improving.reserve import PROMPT_KINDS, Reserve, Turn
from strop.improving.timetable import Timetable
from strop.proving import (
    Assignment,
    Budget,
    BudgetSpentError,
    CandidateSpace,
    Choice,
    DriftFromBase,
    DriftText,
    Journal,
    RunOutcome,
    Start,
    unproved_recipe,
)
from strop.proving.journal import START
from strop.runs import Leaderboard

FEWEST_KEPT = 2
"""Contenders that go on to the next round at least."""

NO_TIME = "there was no time left for it; give a longer --time-limit."


class Improver:
    """Races a portfolio of methods: each round has more data and the better half of those before.

    Everyone in a round is judged on the same select examples, those of earlier rounds among them, so that a challenger wins
    only on as many as the incumbent. "No edit" is always in the running.

    Args:
        given: what is to be improved.
        plan: the settings.
        reserve: what all choosing leaves of the budget; its tempo sizes what each contender reads.
        drift_text: what drift from the base is measured on.

    Raises:
        TaskError: a split is empty, or a row does not fit.
        UsageError: nobody is in the running.
    """

    def __init__(
        self,
        given: Assignment,
        plan: ImprovePlan,
        *,
        reserve: Reserve,
        drift_text: DriftText,
    ) -> None:
        self.given = given
        self.plan = plan
        self._drift_text = drift_text
        self.reserve = reserve
        """What all choosing leaves of the budget."""
        counts = plan.counts(len(given.task.examples("select")))
        self._timetable = Timetable(plan.effort.rounds, counts)
        self.contenders, self.left_out = admitted(given.task, plan)
        self._entries: dict[str, Entry] = {}
        """The newest entry of everyone who has one."""
        self._waiting: set[str] = set()
        """Who had no turn in the newest round, nor before."""

    @property
    def space(self) -> CandidateSpace[tuple[str, bool]]:
        """How its candidates are kept in a study: whose proposal it is, and whether it is of an earlier round."""
        return CandidateSpace(
            method="improve",
            distributions={
                "carried": optuna.distributions.IntDistribution(0, 1),
                "name": optuna.distributions.CategoricalDistribution(all_names()),
            },
            spell=lambda own: {"name": own[0], "carried": int(own[1])},
            read=lambda settings: (str(settings["name"]), bool(settings["carried"])),
        )

    def choose(self, journal: Journal) -> Choice:
        """Return the best proposal of all, where it is better than the model as it is beyond chance.

        Args:
            journal: where finished trials and decisions are kept.
        """
        self._journal, self._kept = journal, Kept(journal)
        tempo, text, seed = self.reserve.tempo, self._drift_text, self.plan.seed
        self._judge = Judge(self.given, journal, self._kept, tempo=tempo, drift_text=text, seed=seed)
        self._prepared = self._made_ready()
        standing, number = [own for own in self.contenders if own.name not in self.left_out], 0
        while number < len(self._timetable.rounds):
            if not self._look(number + 1, standing):
                break
            through = self._round(number + 1, standing)
            ranked = by_merit([self._entries[c.name] for c in standing if c.name in self._entries])
            kept = [entry.contender for entry in ranked[: max(FEWEST_KEPT, math.ceil(len(ranked) / 2))]]
            standing = [*kept, *(c for c in standing if c.name in self._waiting)]  # who had no turn was not beaten
            if through > number + 1:  # its turns were in an earlier round; the look at the best is in its own
                self._look(through, kept[:FEWEST_KEPT])
            number = through
        self._build()
        return self._choice()

    def _seconds_until(self, number: int, through: int) -> float:
        """Return how long it is, as foreseen now, until the time of a round is over, whose turns are in an earlier one or in it."""
        share = self._timetable.share_until(through)
        began = self._prepared.done_at_seconds
        until = began + share * max(self.reserve.ends(self._leading) - began, 0.0)
        if through > number:
            until -= (1 + FEWEST_KEPT) * self.reserve.longest((), self._timetable.counts[through - 1])
        return until - self.seconds

    @property
    def _leading(self) -> tuple[str, ...]:
        """The kind of work that it would be to prove who leads."""
        return kinds_of([self.decision.leader])

    @property
    def chosen_kinds(self) -> tuple[str, ...]:
        """The kind of work that it is to read an example with the choice on the model; none where the model stays as it is."""
        return kinds_of([self.decision.chosen])

    @property
    def seconds(self) -> float:
        """Since the run's beginning."""
        return self._journal.stopwatch.seconds

    @property
    def decision(self) -> Decision:
        """What is chosen of all that is in the running, as it stands."""
        return Decision(
            tuple(self._entries.values()),
            dict(self.left_out),
            objective=self.plan.objective,
            budget_seconds=self.reserve.budget_seconds,
        )

    def _made_ready(self) -> Prepared:
        """Make what several methods need, the same after a resume, and leave out who would need more."""

        def made() -> dict[str, Any]:
            until = self.seconds + MOST_TO_PREPARE * max(self.reserve.ends() - self.seconds, 0.0)
            pace = self.reserve.tempo.pace
            return dataclasses.asdict(prepare(self.given, self.contenders, self._journal, pace, until=until))

        prepared = Prepared(**self._journal.once("prepared", made))
        for own in self.contenders:
            lack = prepared.lack_of(own)
            if lack is not None:
                self.left_out[own.name] = own, lack
        return prepared

    def _round(self, number: int, standing: Sequence[Contender]) -> int:
        """Let everyone who is still in the running propose something, and judge it; return the last round this took the time of."""
        entrants = [Entrant(own, self.given) for own in standing]
        turns, through = self._turns(number, entrants)
        if through > number:
            self._journal.say(f"it takes the time until the end of round {through}, so that more of them have a turn")
        for index, own in enumerate(turns):
            self._run(own, number, through, left=turns[index:])
            self._show()
        nothing_yet = [own for own in standing if own.name not in self._entries]
        self._waiting = {
            own.name for own in nothing_yet if self.left_out.setdefault(own.name, (own, NO_TIME))[1] == NO_TIME
        }
        return through

    def _look(self, number: int, standing: Sequence[Contender]) -> bool:
        """Judge all that there is on a round's examples, so that all in it are judged on as many; return whether there is time."""
        count, rounds = self._timetable.counts[number - 1], len(self._timetable.rounds)
        entries = [self._entries[own.name] for own in standing if own.name in self._entries]
        kinds = kinds_of([own for own in entries if own.found.changes])
        judging = sum(self.reserve.longest([kind], count) for kind in (EXAMPLES, *kinds))
        in_time = number == 1 or self.seconds + judging <= self.reserve.ends(self._leading)
        if not self._journal.once(f"round {number} has time", lambda: in_time):
            self._journal.say(f"no time is left to judge anything on {count} select examples")
            return False
        self._journal.say(f"round {number} of {rounds}: {len(standing)} in the running, {count} select examples")
        self._unedited, self._count = self._judge.unedited(count), count
        for earlier in entries:
            if earlier.share.select < count:
                share = dataclasses.replace(earlier.share, select=count)
                own, spent = earlier.contender, earlier.seconds
                again = self._judge.entry(own, number, share, earlier.found, seconds=spent, earlier=earlier)
                self._entries[own.name] = again
        self._show()
        return True

    def _turns(self, number: int, entrants: Sequence[Entrant]) -> tuple[list[Entrant], int]:
        """Return who has a turn in a round, and the last round whose time that takes, the same after a resume."""
        passing = self._count * self.reserve.tempo.pace.seconds_per_example
        needed = {own.name: own.contender.least_passes * passing + self._turn(own).judging for own in entrants}
        names, through = self._journal.once(
            f"round {number} turns",
            lambda: self._timetable.turns(number, needed, functools.partial(self._seconds_until, number)),
        )
        return [own for own in entrants if own.name in names], through

    def _run(self, entrant: Entrant, number: int, through: int, *, left: Sequence[Entrant]) -> bool:
        """Let one contender propose something, and keep the better of that and what it had; return whether it had a turn."""
        journal, own = self._journal, entrant.contender
        share, turn = self._share(entrant, number, through, left=left), self._turn(entrant)
        if share is None:
            if own.name not in self._entries:
                self.left_out[own.name] = own, NO_TIME
            journal.say(f"{own.name}: no time is left in round {number}")
            return False
        before, started = self._entries.get(own.name), self.seconds
        spent = before.seconds if before is not None else 0.0
        try:
            found = self._found(entrant, number, share, turn)
            seconds = journal.once(f"{own.name} {number} seconds", lambda: self.seconds - started)
            check = functools.partial(self._refuse_to_judge, own, number, turn)
            entry = self._judge.entry(own, number, share, found, seconds=spent + seconds, check=check)
        except StropError as error:
            self.left_out[own.name] = own, reason_in(error)
            journal.say(f"{own.name}: {reason_in(error)}")
            return True
        vain = before is not None and not found.changes
        journal.say(f"{own.name}: {'nothing better than what it had found' if vain else entry.in_short}")
        worse = before is not None and before.trial.merit > entry.trial.merit
        kept = before if worse and before is not None else entry
        every = dataclasses.replace(kept.found, tried=found.tried)  # it was chosen among those of this round too
        self._entries[own.name] = dataclasses.replace(kept, found=every, seconds=spent + seconds)
        self.left_out.pop(own.name, None)
        return True

    def _refuse_to_judge(self, own: Contender, number: int, turn: Turn) -> None:
        """Raise BudgetSpentError where there is no time to judge what a contender found, the same after a resume."""
        if not self._journal.once(f"{own.name} {number} is judged", lambda: turn.can_be_judged):
            raise BudgetSpentError("there was no time left to judge what it found; give a longer --time-limit.")

    def _turn(self, entrant: Entrant) -> Turn:
        """Return what ends a contender's turn, so that what it finds can still be judged, and proved."""
        own, on = entrant.contender, entrant.on
        plain = own.name if on is not None and on.found.shots is not None else EXAMPLES
        return Turn(
            self.reserve,
            self._journal.stopwatch,
            kinds=PROMPT_KINDS if own.family == "prompt" else (plain,),
            leading=self._leading,
            plain=plain,
            examples=self._count,
            drifts=own.family != "prompt" and self._judge.reads_drift,
        )

    def _share(self, entrant: Entrant, number: int, through: int, *, left: Sequence[Entrant]) -> Share | None:
        """Return what a contender gets in a round, the same after a resume; None where no time is left."""

        def gotten() -> dict[str, Any]:
            share = self._share_now(entrant.contender, number, through, left=left)
            return share.to_json() if share is not None else {}

        known = self._journal.once(f"{entrant.name} {number} share", gotten)
        return Share(**known) if known else None

    def _share_now(self, own: Contender, number: int, through: int, *, left: Sequence[Entrant]) -> Share | None:
        """Return what of the time that is left a contender gets, beside what judging them all takes."""
        part = own.least_passes / sum(each.contender.least_passes for each in left)
        judging = sum(self._turn(each).judging for each in left)
        seconds = part * (self._seconds_until(number, through) - judging)
        task = self.given.task
        source = "train" if task.counts.get("train") else "select"
        available = task.counts.get(source, 1)
        before = self._entries.get(own.name)
        share = Share(
            select=self._count,
            train=max(min(available, FEWEST_TO_LEARN_FROM), round(self._timetable.data_of(through) * available)),
            last=through >= len(self._timetable.rounds),
            seconds=round(max(seconds, 0.0), 3),
            objective=self.plan.objective,
            seed=self.plan.seed,
        )
        if own.learns and before is not None and before.can_go_on:
            share = dataclasses.replace(share, goes_on=True, slowed=before.slowed_to_go_on)
        pace = self.reserve.tempo.pace
        needed = own.least_passes * self._count * pace.seconds_per_example  # beside what judging its find takes
        return own.size(share, pace) if seconds > LEAST_OF_A_TURN * needed else None

    def _found(self, entrant: Entrant, number: int, share: Share, turn: Turn) -> Found:
        """Return what a contender proposes in a round, within its time."""
        own, given, on = entrant.contender, entrant.given, entrant.on
        known = self._kept.found(own.name, number)
        if known is not None:
            return known
        journal, before = self._journal, self._entries.get(own.name)
        if share.goes_on and before is not None:
            given = dataclasses.replace(given, start=before.found.edits)
        until = journal.once(f"{own.name} {number} until", lambda: self.seconds + share.seconds)
        chooser = own.make(given, share)
        journal.study.take(chooser.space)
        stage, folder = f"{own.name} {number}", self._kept.folder(own.name, number)
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        journal.say(f"{own.name}: {own.words(share)}, {share.seconds:.0f} s at most")
        its = dataclasses.replace(
            journal,
            space=chooser.space,
            stage=stage,
            budget=Budget(seconds=until, evaluations=journal.budget.evaluations),
            folder=folder,
            basis=own.name if on is not None else "",
            begins_with=stage if share.goes_on else "",
            about=own.name,
            deadline=turn,
        )
        if share.goes_on and before is not None:
            its.take_over(its.unedited_key(examples=share.select, started=True), before.trial)
        elif on is not None:  # what it begins from was judged on these examples
            prompted = on.found.shots is not None
            its.take_over(its.unedited_key(examples=share.select), on.trial if prompted else self._unedited)
            if not prompted:
                its.take_over(its.unedited_key(examples=share.select, started=True), on.trial)
        choice = chooser.choose(its)
        stages = {f"{own.name} {earlier}" for earlier in range(1, number + 1)}
        tried = sum(trial.key.stage in stages and trial.key.method != START for trial in journal.study.trials())
        tried += on.found.tried if on is not None else 0
        begun = before.trial if share.goes_on and before is not None else choice.started or choice.unedited
        improves = choice.best.merit > begun.merit
        found = Found(
            unproved_recipe(given, choice, base=given.base) if improves and choice.edits else None,
            (choice.shots if on is None else on.found.shots) if improves else None,
            max(1, tried),
            choice.tokens,
            its.guards.drift_of(DriftFromBase(self._drift_text), choice.best.key) if improves else None,
        )
        self._kept.keep_found(own.name, number, found)
        if folder is not None:
            for leftover in ("checkpoints", "gradients", "best"):
                shutil.rmtree(folder / leftover, ignore_errors=True)
        return found

    def _build(self) -> None:
        """Build on the best, in the time that is kept for it, and let who waited for a turn have a short one in what is left."""
        number, pending = len(self._timetable.rounds), list[Entrant]()
        if self.plan.effort.builds:
            judged = [own for own in self.decision.judged_last if own.found.changes]
            ready, length = self._prepared, self.reserve.tempo.pace.tokens_per_example
            pending += builders(judged, self.given, self.plan.families, prepared=ready, tokens_per_example=length)
        for own in (own.contender for own in pending if own.contender.longer > 1):
            self.reserve.tempo.expect(own.name, own.longer)
        waiting = [own for own in self.contenders if own.name in self._waiting]
        pending += [Entrant(own.for_less(LEAST_OF_A_TURN), self.given) for own in waiting]
        began = True
        while pending and began:  # where turns ended early there may be time for more of them
            number += 1
            turns, _ = self._turns(number, pending)
            began = False
            for index, entrant in enumerate(turns):
                began |= self._run(entrant, number, number, left=turns[index:])
                self._show()
            pending = [own for own in pending if own not in turns]
        for entrant in pending:
            self.left_out.setdefault(entrant.name, (entrant.contender, NO_TIME))

    def _show(self) -> None:
        """Write down how everyone stands."""
        decision = self.decision
        board = decision.leaderboard(unedited=self._unedited, spent_seconds=self.seconds, final=False)
        self._kept.show(board, decision.leader)

    def final_leaderboard(self, outcome: RunOutcome) -> Leaderboard:
        """Return how all stood when the choice was made, with what test says of that.

        Args:
            outcome: of the run.
        """
        result = outcome.result
        board = self.decision.leaderboard(unedited=self._unedited, spent_seconds=result.cost.wall_seconds, final=True)
        first, *others = board.standings
        proved = dataclasses.replace(first, test=result.comparison["test"])
        return dataclasses.replace(board, standings=(proved, *others))

    def _choice(self) -> Choice:
        """Return what is chosen, and leave the leaderboard as it stands."""
        chosen = self.decision.chosen
        tokens = self._judge.tokens + sum(own.found.tokens for own in self._entries.values())
        self._show()
        if chosen is None:
            return Choice(Start(), self._unedited, self._unedited, tokens=tokens)
        return Choice(chosen.found.edits, self._unedited, chosen.trial, tokens=tokens, shots=chosen.found.shots)
