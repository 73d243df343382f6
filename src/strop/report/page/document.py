"""What a report says, whatever it is drawn as: chapters of sections of tables, figures, examples and lines."""

import dataclasses
from typing import Literal

from strop.report.page.drawing import Figure
from strop.statistics import ChangedAnswer
from strop.tables import Table


@dataclasses.dataclass(frozen=True)
class Examples:
    """Answers that an edit changed, with both answers."""

    kind: Literal["fixed", "broken"]
    count: int
    """All of them, shown or not."""
    shown: tuple[ChangedAnswer, ...]


@dataclasses.dataclass(frozen=True)
class Code:
    """Text that is to be copied as it stands."""

    text: str


@dataclasses.dataclass(frozen=True)
class Quotes:
    """How a few texts go on, before and after."""

    rows: tuple[tuple[str, str, str], ...]
    """Prompt, before, after."""


Part = Table | Figure | Examples | Code | Quotes | str


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of a chapter under a heading of its own."""

    title: str
    parts: tuple[Part, ...]

    @property
    def name(self) -> str:
        """What a link calls it."""
        return "".join(letter if letter.isalnum() else "-" for letter in self.title.lower()).strip("-")


@dataclasses.dataclass(frozen=True)
class Headline:
    """The figures that a chapter opens with."""

    measure: str
    """What before and after are figures of."""
    before: str
    after: str
    gain: str
    interval: str
    unit: str
    """Of the gain and its interval."""
    count: int
    """Held-out examples."""


@dataclasses.dataclass(frozen=True)
class Chapter:
    """One run."""

    title: str
    subtitle: str
    verdict: str
    """The decision in a few words."""
    mood: Literal["good", "neutral", "bad"]
    sentences: tuple[str, ...]
    """The decision and why, three at most."""
    headline: Headline | None
    """None of a run that is not finished."""
    sections: tuple[Section, ...]


@dataclasses.dataclass(frozen=True)
class Document:
    """A whole report."""

    title: str
    chapters: tuple[Chapter, ...]
    comparison: tuple[Part, ...] = ()
    """Of several runs; empty of one."""
    note: str = ""
    """What is to be said of the page itself."""
