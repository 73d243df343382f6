"""Trials that several workers do between them: each takes the next portion that nobody has begun, and scores it trial by trial."""

import collections
import random
import time
from collections.abc import Callable, Hashable, Mapping, Sequence

from strop.proving.claim import Claim
from strop.proving.study import Study
from strop.proving.trials import Trial, TrialKey
from strop.scoring import Evaluation

SHORTEST_PAUSE, LONGEST_PAUSE = 0.02, 0.5
"""Seconds between two looks at what others do; each is longer than the one before."""


class Turns:
    """Hands out trials, one after the other, until none is left: `with turns: for key in turns: turns.measure(evaluate)`.

    Whoever decides waits in the end for what others still do, and takes over what they left behind when they died. A helper
    leaves as soon as nothing waits.

    Args:
        study: they are in the queue of.
        keys: of the trials, in the order they are best done.
        portion: what parts them: the trials of one portion are best done by one worker.
        finish: scores a trial and writes it down; see `Journal.finish`.
        over: returns whether nothing further may begin.
        withdraw: tells helpers so; None where there are none.
        decides: for the rest, whoever hands them out waits for them.
        done: told how many trials more are finished.
    """

    def __init__(
        self,
        study: Study,
        keys: Sequence[TrialKey],
        *,
        portion: Callable[[TrialKey], Hashable],
        finish: Callable[[Claim, Callable[[], Evaluation]], Trial],
        over: Callable[[], bool],
        withdraw: Callable[[], None] | None = None,
        decides: bool = True,
        done: Callable[[int], None] = lambda count: None,
    ) -> None:
        self._study, self._keys, self._portion = study, list(keys), portion
        self._finish, self._over, self._withdraw, self._decides, self._done = finish, over, withdraw, decides, done
        # helpers that see a batch at the same moment would all begin the same portion
        self._choose: Callable[[Sequence[list[TrialKey]]], list[TrialKey]] = (
            _first if decides else random.Random().choice
        )
        self._sizes = collections.Counter(map(portion, self._keys))
        self._mine: list[TrialKey] = []
        self._held: Claim | None = None
        self._known_to_be_done = 0

    def __enter__(self) -> "Turns":
        return self

    def __exit__(self, *error: object) -> None:
        self._let_go(*error)

    def __iter__(self) -> "Turns":
        return self

    def __next__(self) -> TrialKey:
        """Return the next trial, which is held until the one after it is asked for."""
        self._let_go()
        while not self._over():
            self._held = self._next_claim()
            if self._held is not None:
                self._held.__enter__()
                return self._held.key
            if not self._decides or not self._wait(lambda: bool(self._waiting())):
                raise StopIteration
        if self._decides:
            if self._withdraw is not None:
                self._withdraw()
            self._wait(lambda: len(self._waiting()) == len(self._study.unfinished(self._keys)))
        raise StopIteration

    def measure(self, evaluate: Callable[[], Evaluation]) -> Trial:
        """Score the trial that was handed out last, and write it down.

        Args:
            evaluate: scores the candidate, which is on the model while it runs.
        """
        assert self._held is not None  # one was handed out
        trial = self._finish(self._held, evaluate)
        self._known_to_be_done += 1
        self._done(1)
        return trial

    def _next_claim(self) -> Claim | None:
        while True:
            claim = self._study.claim(self._mine)
            if claim is not None:
                return claim
            waiting = self._waiting()
            if not waiting:
                return None
            self._mine = next_portion(waiting, self._sizes, self._portion, choose=self._choose)

    def _waiting(self) -> tuple[TrialKey, ...]:
        waiting = self._study.waiting(self._keys)
        if self._decides:
            self._tell_of_others()
        return waiting

    def _tell_of_others(self) -> None:
        done = len(self._study.finished(self._keys))
        if done > self._known_to_be_done:
            self._done(done - self._known_to_be_done)
            self._known_to_be_done = done

    def _wait(self, enough: Callable[[], bool]) -> bool:
        """Wait while others work; return whether there was enough before all was finished."""
        pause = SHORTEST_PAUSE
        while self._study.unfinished(self._keys):
            self._study.requeue_abandoned()
            if enough():
                return True
            time.sleep(pause)
            pause = min(1.5 * pause, LONGEST_PAUSE)
        return False

    def _let_go(self, *error: object) -> None:
        """Put back what is held and was not finished."""
        if self._held is not None:
            held, self._held = self._held, None
            held.__exit__(*error)


def _first(portions: Sequence[list[TrialKey]]) -> list[TrialKey]:
    return portions[0]


def next_portion(
    waiting: Sequence[TrialKey],
    sizes: Mapping[Hashable, int],
    portion: Callable[[TrialKey], Hashable],
    *,
    choose: Callable[[Sequence[list[TrialKey]]], list[TrialKey]] = _first,
) -> list[TrialKey]:
    """Return what a worker does next: a portion that nobody has begun, else the second half of one of the longest rests.

    Args:
        waiting: trials, in order.
        sizes: of all portions, by what tells them apart.
        portion: of a trial.
        choose: one of several that are as good; the first by default.

    >>> keys = [TrialKey("cut", "choice", 1, "select", 9, {"layer": layer, "rank": rank}) for layer in (0, 1) for rank in (1, 2, 3)]
    >>> layer = lambda key: key.candidate["layer"]
    >>> [key.candidate["rank"] for key in next_portion(keys[1:], {0: 3, 1: 3}, layer)]
    [1, 2, 3]
    >>> [key.candidate["rank"] for key in next_portion(keys[1:3], {0: 3, 1: 3}, layer)]
    [3]
    """
    left: dict[Hashable, list[TrialKey]] = {}
    for key in waiting:
        left.setdefault(portion(key), []).append(key)
    if untouched := [keys for name, keys in left.items() if len(keys) == sizes[name]]:
        return choose(untouched)
    longest = max(map(len, left.values()))
    rest = choose([keys for keys in left.values() if len(keys) == longest])
    return rest[len(rest) // 2 :]
