"""Letting others help with a choice while it is made: those that come by themselves, and those that are started for it."""

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from strop.anatomy import input_device
from strop.proving.assignment import Assignment
from strop.proving.board import Board
from strop.proving.hiring import hired
from strop.proving.notice import Notice
from strop.proving.options import RunOptions
from strop.proving.study import Study


@contextlib.contextmanager
def helped(
    given: Assignment, study: Study, options: RunOptions, *, command: str, plan: Mapping[str, Any] | None
) -> Iterator[Board | None]:
    """Let others help for the length of a block, and yield where they see what they may help with.

    Args:
        given: what the run is about.
        study: its queue.
        options: of the run, which say how many workers it begins.
        command: that was called.
        plan: its settings, as config.json holds them; None where nobody can help, for each trial depends on the one before.

    Yields:
        None where nobody may help.
    """
    uncalled = given.task.shows_images and options.workers == 1  # images may be too many to send for nobody
    if plan is None or study.address is None or uncalled:
        yield None
        return
    notice = Notice.of(given, command=command, plan=plan, options=options)
    board = Board(study, dataclasses.asdict(notice))
    hiring = hired(
        f"{study.address}#{study.name}",
        count=options.workers,
        executor=options.executor,
        device=input_device(given.model),
        progress=options.progress,
    )
    with board.held(), hiring:
        yield board
        board.end()  # those that were started leave by themselves
