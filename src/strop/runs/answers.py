"""answers.jsonl: what base and edited model answered to each held-out example, one a line."""

import dataclasses
import json
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from strop.files import replacing_file
from strop.runs.reading import DAMAGED, reading

ANSWERS_FILE = "answers.jsonl"
LONGEST = 600
"""Characters that are kept of a prompt, whose end asks, and of an answer, whose beginning answers."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class KeptAnswer:
    """One test example, and what the model as it was and the chosen one answered.

    >>> answer = KeptAnswer(row=7, score="exact", prompt="The city of Lyon is in", wanted="France", right_after=True)
    >>> KeptAnswer.from_json(answer.to_json()) == answer
    True
    """

    row: int
    """Of the example in its file."""
    score: str
    """How answers were judged; of `exact` and `first_token` an answer's first token is what is known."""
    prompt: str
    wanted: str
    """What is right."""
    before: str | None = None
    """What was answered before; None where nothing is read out of a model."""
    after: str | None = None
    right_before: bool | None = None
    """None where nothing is right or wrong."""
    right_after: bool | None = None
    loss_before: float | None = None
    """Nats per answer token; None where it is not finite."""
    loss_after: float | None = None
    category: str | None = None
    group: str | None = None
    """Answers of one group are one observation."""
    frequency: float | None = None
    """How often the training data held the fact."""

    @property
    def fixed(self) -> bool:
        """Whether it was wrong and is right."""
        return self.right_before is False and self.right_after is True

    @property
    def broken(self) -> bool:
        """Whether it was right and is wrong."""
        return self.right_before is True and self.right_after is False

    def to_json(self) -> dict[str, Any]:
        """Return what a line holds; what is not known is left out."""
        return {name: own for name, own in dataclasses.asdict(self).items() if own is not None}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "KeptAnswer":
        """Return the answer a line holds; fields of a later version are passed over.

        Raises:
            KeyError: it lacks what every line has.
            TypeError: it is no mapping, or a value is of another kind.
        """
        kinds = typing.get_type_hints(cls)
        fields = {name: own for name, own in {**content, "row": content["row"]}.items() if name in kinds}
        for name, own in fields.items():
            kind = kinds[name]
            if not isinstance(own, kind | int if float in typing.get_args(kind) else kind):
                raise TypeError(f"{name} is {own!r}")
        return cls(**fields)


def write_answers(folder: Path, answers: Iterable[KeptAnswer]) -> Path:
    """Write a run's answers in one step, and return the file's path.

    Args:
        folder: of the run.
        answers: in the order of the test examples.
    """
    path = folder / ANSWERS_FILE
    with replacing_file(path) as temporary, temporary.open("w", encoding="utf-8", errors="replace") as file:
        for answer in answers:
            file.write(json.dumps(answer.to_json(), ensure_ascii=False, allow_nan=False) + "\n")
    return path


def read_answers(folder: Path) -> tuple[KeptAnswer, ...]:
    """Read a run's answers; none of a run that an older version wrote, or that is not finished.

    Args:
        folder: of the run.

    Raises:
        RunError: the file cannot be read.
    """
    path = folder / ANSWERS_FILE
    if not path.is_file():
        return ()
    with reading(path, otherwise=DAMAGED):
        lines = path.read_text(encoding="utf-8").split("\n")  # an answer may hold other ends of a line
        return tuple(KeptAnswer.from_json(json.loads(line)) for line in lines if line)


def capped(text: str, *, keep_end: bool = False) -> str:
    """Return a text, or of a long one the part that matters.

    Args:
        text: a prompt or an answer.
        keep_end: keep its end, which asks, and not its beginning.

    >>> len(capped("x" * 1000)), capped("y" * 1000, keep_end=True)[:3]
    (600, '…yy')
    """
    if len(text) <= LONGEST:
        return text
    return f"…{text[1 - LONGEST :]}" if keep_end else f"{text[: LONGEST - 1]}…"


def numbered_groups(answers: Sequence[KeptAnswer]) -> list[int]:
    """Return the number of each answer's group; one without a group stands alone.

    >>> one = KeptAnswer(row=1, score="exact", prompt="", wanted="", group="Lyon")
    >>> numbered_groups([one, dataclasses.replace(one, group=None), one])
    [0, 1, 0]
    """
    numbers: dict[object, int] = {}
    keys = (index if answer.group is None else answer.group for index, answer in enumerate(answers))
    return [numbers.setdefault(key, len(numbers)) for key in keys]
