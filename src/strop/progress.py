"""How long work tells how far it is; the silent default costs nothing."""

import sys
from typing import Any


class Progress:
    """Called by anything that takes more than a second; this base says nothing, a door overrides it."""

    def start(self, stage: str, total: int) -> None:
        """A stage of `total` steps begins; the one before it is over."""

    def advance(self, steps: int = 1) -> None:
        """`steps` more are done."""

    def note(self, line: str) -> None:
        """A line worth keeping: a decision, a figure."""


SILENT = Progress()


class Bars(Progress):
    """A bar for each stage by tqdm, as a widget in a notebook and as text elsewhere; notes are lines above it."""

    def __init__(self) -> None:
        self._bar: Any = None

    def start(self, stage: str, total: int) -> None:
        """Replace the bar by one for this stage."""
        from tqdm.auto import tqdm

        self._close()
        self._bar = tqdm(total=total, desc=stage, leave=False, dynamic_ncols=True)

    def advance(self, steps: int = 1) -> None:
        """Move the bar on, and take it away once it is full."""
        if self._bar is not None:
            self._bar.update(steps)
            if self._bar.n >= self._bar.total:
                self._close()

    def note(self, line: str) -> None:
        """Write a line on standard error."""
        from tqdm.auto import tqdm

        tqdm.write(line, file=sys.stderr)

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def shown_here() -> Progress:
    """Return bars where a person watches, in a notebook or at a terminal; elsewhere what says nothing."""
    return Bars() if _in_notebook() or sys.stderr.isatty() else SILENT


def _in_notebook() -> bool:
    ipython = sys.modules.get("IPython")  # a notebook has loaded it before anything of ours
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and "IPKernelApp" in shell.config
