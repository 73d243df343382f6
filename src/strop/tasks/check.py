"""What a task file makes of its rows: all that is bad at once, and what is worth a look before a model is asked."""

import collections
import dataclasses
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from strop.errors import TaskError
from strop.tasks.examples import Example, group_key
from strop.tasks.loading import read_source
from strop.tasks.rendering import BadRow
from strop.tasks.rows import Rows
from strop.tasks.splits import without_repeats
from strop.tasks.task import Task
from strop.tasks.task_file import Score

MOST_COMMON = 5
AROUND = 20
"""Characters that are shown on either side of the border."""


@dataclasses.dataclass(frozen=True)
class SourceRows:
    """What became of the rows of one source."""

    name: str
    examples: int
    """Rows that are examples, repeated ones included."""
    bad: int
    skipped: int
    """Rows that the task file names in `skip`."""
    left_out: int
    """Rows of which the condition in `where` is not true."""


@dataclasses.dataclass(frozen=True)
class SplitRows:
    """What a split holds."""

    name: str
    examples: int
    groups: int | None
    """None where no row has one."""
    categories: int | None


@dataclasses.dataclass(frozen=True)
class Lengths:
    """How long texts are."""

    fewest: int
    median: float
    most: int

    @classmethod
    def of(cls, lengths: Sequence[int]) -> "Lengths":
        """Return the lengths' range and middle.

        >>> Lengths.of([1, 2, 9])
        Lengths(fewest=1, median=2, most=9)
        """
        return cls(min(lengths), statistics.median(lengths), max(lengths))


@dataclasses.dataclass(frozen=True)
class Contradiction:
    """A prompt that has several answers."""

    prompt: str
    answers: tuple[str, ...]
    rows: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class TaskCheck:
    """What `check_task` found."""

    name: str
    score: Score
    sources: tuple[SourceRows, ...]
    bad: tuple[BadRow, ...]
    """Every row that cannot become an example."""
    problem: str | None
    """What else keeps the good rows from being a task, in a sentence; None for nothing."""
    splits: tuple[SplitRows, ...]
    """Of the good rows; empty where there is a problem."""
    prompt_characters: Lengths | None
    """None where there are no good rows, or what is asked about is images."""
    answer_characters: Lengths | None
    common_answers: tuple[tuple[str, int], ...]
    """The most frequent answers of distinct examples, and how often they are given."""
    distinct: int
    """Examples, each counted once."""
    repeated: int
    """Rows that ask and answer as an earlier one does; each is kept once."""
    contradictions: tuple[Contradiction, ...]
    blanks: tuple[tuple[int, str], ...]
    """Row and answer of each answer with blanks to spare: two before it, or one behind it."""
    glued: tuple[tuple[int, str], ...]
    """Row and text around the border of each answer that goes on a word of its prompt, for want of a space."""
    task: Task | None = dataclasses.field(repr=False)
    """The task that the good rows are; None where there is a problem."""

    @property
    def fits(self) -> bool:
        """Whether the task can be used as it is."""
        return not self.bad and self.problem is None

    @property
    def example(self) -> Example | None:
        """One example as a model is asked it, shots included."""
        return next((split[0] for split in (self.task.splits.values() if self.task else ()) if split), None)

    def to_json(self) -> dict[str, Any]:
        """Return everything but the task, as JSON values."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name != "task"}
        shown = self.example
        example = None if shown is None else {"row": shown.row, "prompt": shown.prompt, "answer": shown.answer}
        return {"fits": self.fits, **_plain(values), "example": example}


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, Mapping):
        return {name: _plain(own) for name, own in value.items()}
    return [_plain(own) for own in value] if isinstance(value, (list, tuple)) else value


def check_task(source: str | Path | Mapping[str, Any] | Rows) -> TaskCheck:
    """Read a task and say all that is wrong with its rows, and what they hold.

    Args:
        source: as `load_task` takes it.

    Raises:
        TaskError: the task file or a source cannot be read, or a template does not compile or computes without end.

    >>> rows = [{"prompt": f"{n} + 1 =", "answer": f" {n + 1}" if n < 8 else ""} for n in range(10)]
    >>> found = check_task(rows)
    >>> found.fits, [row.row for row in found.bad], found.bad[0].problem
    (False, [9, 10], 'the answer is empty; fill its column or drop the row.')
    """
    found = read_source(source).with_images_decoded()
    task, problem = None, None
    examples = [example for rows in found.rendered.values() for example in rows.examples]
    try:
        task = found.task() if examples else None  # without any, its bad rows say all
    except TaskError as error:
        problem = str(error)
    distinct = without_repeats(examples)
    read = [example for example in distinct if example.image is None]
    worded = distinct if found.task_file.labels is None else []  # a label is no part of the text
    return TaskCheck(
        name=found.task_file.name,
        score=found.task_file.score,
        sources=tuple(
            SourceRows(name, len(rows.examples), len(rows.bad), rows.skipped, rows.left_out)
            for name, rows in found.rendered.items()
        ),
        bad=found.bad,
        problem=problem,
        splits=() if task is None else tuple(_split(name, members) for name, members in task.splits.items() if members),
        prompt_characters=Lengths.of([len(example.prompt) for example in read]) if read else None,
        answer_characters=Lengths.of([len(example.answer) for example in distinct]) if distinct else None,
        common_answers=tuple(collections.Counter(example.answer for example in distinct).most_common(MOST_COMMON)),
        distinct=len(distinct),
        repeated=len(examples) - len(distinct),
        contradictions=tuple(_contradictions(distinct)),
        blanks=tuple((example.row, example.answer) for example in distinct if _has_spare_blanks(example)),
        glued=tuple((example.row, _around_border(example)) for example in worded if _is_glued(example)),
        task=task,
    )


def _split(name: str, examples: Sequence[Example]) -> SplitRows:
    groups = {group_key(example.group) for example in examples if example.group is not None}
    categories = {example.category for example in examples if example.category is not None}
    return SplitRows(name, len(examples), len(groups) or None, len(categories) or None)


def _has_spare_blanks(example: Example) -> bool:
    return example.answer[:2] == "  " or example.answer[-1] in " \t"


def _is_glued(example: Example) -> bool:
    """Say whether a word goes on over the border; of the letters that are written without spaces nothing can be said."""
    border = example.prompt[-1:] + example.answer[:1]
    return example.chat is None and len(border) == 2 and border.isascii() and border.isalnum()


def _around_border(example: Example) -> str:
    return f"{example.prompt[-AROUND:]}|{example.answer[:AROUND]}"


def _contradictions(examples: Sequence[Example]) -> Iterable[Contradiction]:
    asked: dict[object, list[Example]] = {}
    for example in examples:
        asked.setdefault(example.identity[:-1], []).append(example)
    for alike in asked.values():
        if len(alike) > 1:
            answers, rows = tuple(example.answer for example in alike), tuple(example.row for example in alike)
            yield Contradiction(alike[0].prompt, answers, rows)
