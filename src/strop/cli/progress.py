"""How far a command is, on standard error: bars for a person who watches, else a line every half minute."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import rich.console
import rich.progress

from strop.cli.duration import spell_seconds
from strop.progress import SILENT, Progress

EVERY_SECONDS = 30.0
"""How often a line is written where nobody watches."""


class _Bars(Progress):
    """Progress bars with the time left, and notes as lines."""

    def __init__(self, console: rich.console.Console) -> None:
        self._console = console
        self.bars = rich.progress.Progress(
            rich.progress.TextColumn("{task.description}"),
            rich.progress.BarColumn(),
            rich.progress.MofNCompleteColumn(),
            rich.progress.TimeElapsedColumn(),
            rich.progress.TextColumn("left"),
            rich.progress.TimeRemainingColumn(),
            console=console,
            transient=True,
        )
        self._current: rich.progress.TaskID | None = None

    def start(self, stage: str, total: int) -> None:
        if self._current is not None:
            self.bars.remove_task(self._current)
        self._current = self.bars.add_task(stage, total=total)

    def advance(self, steps: int = 1) -> None:
        if self._current is not None:
            self.bars.advance(self._current, steps)

    def note(self, line: str) -> None:
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)


class _Lines(Progress):
    """Notes as they come, and every half minute a line that says how far the current stage is.

    Args:
        write: takes a line without its end.
        clock: seconds that only grow.

    >>> seconds = iter([0.0, 0.0, 10.0, 40.0])
    >>> lines = _Lines(print, clock=lambda: next(seconds))
    >>> lines.start("scoring facts/test", 100)
    >>> lines.advance(10)
    >>> lines.advance(10)
    scoring facts/test: 20 of 100, 2 min 40 s left
    """

    def __init__(self, write: Callable[[str], None], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._write = write
        self._clock = clock
        self._told = clock()
        self._stage, self._total, self._done, self._began = "", 0, 0, self._told

    def start(self, stage: str, total: int) -> None:
        self._stage, self._total, self._done, self._began = stage, total, 0, self._clock()

    def advance(self, steps: int = 1) -> None:
        self._done += steps
        now = self._clock()
        if now - self._told >= EVERY_SECONDS and self._stage:
            left = (now - self._began) * max(self._total - self._done, 0) / max(self._done, 1)
            self._write(f"{self._stage}: {self._done:,} of {self._total:,}, {spell_seconds(left)} left")
            self._told = now

    def note(self, line: str) -> None:
        self._write(line)


@contextmanager
def showing_progress(*, quiet: bool) -> Iterator[Progress]:
    """Yield what to tell progress to; nothing is shown where `quiet` is given."""
    console = rich.console.Console(stderr=True)
    if quiet:
        yield SILENT
    elif console.is_terminal:
        shown = _Bars(console)
        with shown.bars:
            yield shown
    else:
        yield _Lines(lambda line: console.print(line, highlight=False, markup=False, soft_wrap=True))
