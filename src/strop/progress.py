"""How long work tells how far it is; the silent default costs nothing."""


class Progress:
    """Called by anything that takes more than a second; this base says nothing, a door overrides it."""

    def start(self, stage: str, total: int) -> None:
        """A stage of `total` steps begins; the one before it is over."""

    def advance(self, steps: int = 1) -> None:
        """`steps` more are done."""

    def note(self, line: str) -> None:
        """A line worth keeping: a decision, a figure."""


SILENT = Progress()
