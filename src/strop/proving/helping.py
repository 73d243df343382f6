"""Helping a run: wait for what is to be done, take part in it, and leave when it is over or whoever decides is gone."""

import time
from collections.abc import Callable, Sequence

from strop.errors import RunError
from strop.proving.board import Batch, batch_of, life_of, waiting_of
from strop.proving.study import GRACE_SECONDS, Study
from strop.proving.trials import TrialKey
from strop.proving.turns import LONGEST_PAUSE, SHORTEST_PAUSE


def help_with(
    study: Study,
    take_part: Callable[[Batch, Sequence[TrialKey]], None],
    *,
    where: str,
    patience_seconds: float = GRACE_SECONDS,
) -> None:
    """Take part in one batch of a run after the other, until nothing is to be done any more.

    Args:
        study: of the run.
        take_part: does trials of a batch that are not finished, as long as some wait.
        where: what to call the study in errors.
        patience_seconds: how long to wait where whoever decides gives no sign of life.

    Raises:
        RunError: whoever decides has fallen silent.
    """
    life, since, pause = life_of(study), time.monotonic(), SHORTEST_PAUSE
    while (batch := batch_of(study)) is not None and not batch.over:
        if keys := waiting_of(study, batch):
            take_part(batch, keys)
            since, pause = time.monotonic(), SHORTEST_PAUSE
            continue
        time.sleep(pause)
        pause = min(1.5 * pause, LONGEST_PAUSE)
        seen = life_of(study)
        if seen != life:
            life, since = seen, time.monotonic()
        elif time.monotonic() - since > patience_seconds:
            raise RunError(
                f"The search in {where} has given no sign of life for {patience_seconds:g} s: go on with it by --resume, then "
                "start its workers."
            )
