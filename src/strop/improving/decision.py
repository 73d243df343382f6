"""Who wins, and why, in words."""

import dataclasses
from collections.abc import Mapping, Sequence

from strop.improving.contenders import Contender
from strop.improving.entry import Entry
from strop.proving import Trial
from strop.runs import Leaderboard, Standing, State
from strop.statistics import ObjectiveName

NO_EDIT = "no edit"


def by_merit(entries: Sequence[Entry]) -> list[Entry]:
    """Return entries, the best first; of two that are equal the one with less drift, then the earlier one.

    Args:
        entries: judged on the same examples.
    """
    return sorted(
        entries,
        key=lambda own: (*(-value for value in own.trial.merit), own.drift.kl if own.drift is not None else 0.0),
    )


@dataclasses.dataclass(frozen=True, eq=False)
class Decision:
    """All that is in the running, and what follows."""

    entries: tuple[Entry, ...]
    left_out: Mapping[str, tuple[Contender, str]]
    objective: ObjectiveName
    budget_seconds: float
    """All that there is."""

    @property
    def judged_last(self) -> list[Entry]:
        """Those judged on the most examples, the best first: others cannot be compared with them."""
        most = max((own.share.select for own in self.entries), default=0)
        return by_merit([own for own in self.entries if own.share.select == most])

    @property
    def chosen(self) -> Entry | None:
        """The best one that may be chosen, or one as good whose requests are shorter; None for the model as it is."""
        able = [own for own in self.judged_last if own.obstacle(rivals=len(self.entries)) is None]
        return next((own for own in able if own.is_as_good_and_asks_less(able[0])), able[0]) if able else None

    @property
    def leader(self) -> Entry | None:
        """Who leads so far: the one that would be chosen now, else the best one that changes anything."""
        return self.chosen or next((own for own in self.judged_last if own.found.changes), None)

    def leaderboard(self, *, unedited: Trial, spent_seconds: float, final: bool) -> Leaderboard:
        """Return how all stand.

        Args:
            unedited: what select says of the model as it is.
            spent_seconds: so far.
            final: the decision is made.
        """
        chosen, last = self.chosen, self.judged_last
        earlier = by_merit([own for own in self.entries if own not in last])
        earlier.sort(key=lambda own: -own.share.select)
        standings = []
        for own in (*last, *earlier):
            state: State = "tried" if own in last else "stopped"
            why = (
                self._reservation(own) if own in last else f"others were better on {own.share.select} select examples."
            )
            if final and own is chosen:
                state, why = "chosen", ""
            standings.append(own.standing(state=state, why=why))
        plain = Standing(
            name=NO_EDIT,
            family="none",
            setting="the model as it is",
            state="chosen" if final and chosen is None else "tried",
            select=unedited.figures,
        )
        place = next((at for at, own in enumerate(last) if own.trial.merit <= unedited.merit), len(last))
        standings.insert(place, plain)
        if final:
            standings.sort(key=lambda own: own.state != "chosen")
        standings += [
            Standing(name=name, family=own.family, setting="", state="left out", why=why)
            for name, (own, why) in self.left_out.items()
            if name not in {entry.name for entry in self.entries}
        ]
        return Leaderboard(
            standings=tuple(standings),
            objective=self.objective,
            spent_seconds=round(spent_seconds, 1),
            budget_seconds=self.budget_seconds,
            decision=self.sentence,
        )

    def _reservation(self, own: Entry) -> str:
        """Return why one of those judged last is not chosen, in a sentence; empty where others are simply better."""
        obstacle = own.obstacle(rivals=len(self.entries))
        if obstacle is not None:
            return obstacle
        chosen = self.chosen
        if chosen is None or own.trial.merit <= chosen.trial.merit or not chosen.is_as_good_and_asks_less(own):
            return ""
        assert own.tokens_per_request is not None
        assert chosen.tokens_per_request is not None
        longer = own.tokens_per_request - chosen.tokens_per_request
        return f"that is within one standard error, for {longer:.0f} more tokens in each request."

    @property
    def sentence(self) -> str:
        """What is chosen, and why, in a few sentences."""
        chosen, last = self.chosen, self.judged_last
        if chosen is None:
            if not last:
                return (
                    "The model stays as it is: no time was left for anything, for loading, preparing and measuring take longer "
                    f"than the budget of {self.budget_seconds:g} s."
                )
            best = last[0]
            why = best.obstacle(rivals=len(self.entries))
            return f"The model stays as it is. The best that was tried is {best.name}, and {why}"
        others = [own for own in last if own is not chosen]
        low, high = chosen.gain.ci95
        points = 100 if chosen.trial.accuracy is not None or chosen.trial.metric is not None else 1
        unit = "points" if points == 100 else "nats"
        words = (
            f"{_upper(chosen.name)} is chosen: {points * chosen.gain.gain:+.1f} {unit} "
            f"({points * low:+.1f} to {points * high:+.1f}) on {chosen.share.select} select examples"
        )
        words += f", at a drift of {chosen.drift.spelt_kl} nats per token." if chosen.drift is not None else "."
        better = [own for own in others if own.trial.merit > chosen.trial.merit]
        if better:
            words += f" {_upper(better[0].name)} scored higher, but {self._reservation(better[0])}"
        elif others:
            words += f" The next best is {others[0].name} with {points * others[0].gain.gain:+.1f} {unit}."
        if chosen.came_late:
            words += " It came late: a larger --time-limit may find more."
        return words


def _upper(name: str) -> str:
    """Return a name as a sentence begins with it."""
    return name[0].upper() + name[1:]
