"""Examples: a prompt with its right answer, its group and its category."""

import dataclasses
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from strop.errors import TaskError, quoted
from strop.statistics.spread import OTHER
from strop.tasks.chat import Chat
from strop.tasks.extraction import extract, last_number, until_stop
from strop.tasks.pictures import Picture
from strop.tasks.task_file import GenerateSettings

ACCENTS = dict.fromkeys(range(768, 880))
"""Combining marks that stand on letters; those of other scripts tell words apart."""


@dataclasses.dataclass(frozen=True)
class Shot:
    """A solved example that is shown before a prompt."""

    prompt: str
    answer: str
    end: str = "\n"
    """What parts it from what follows; a chat's turns need none."""


@dataclasses.dataclass(frozen=True)
class Example:
    """One prompt with its right answer."""

    prompt: str
    answer: str
    """The continuation, its leading space included."""
    choices: tuple[str, ...] | None = None
    """All continuations to choose from, the answer among them."""
    paraphrases: tuple[str, ...] = ()
    """Other prompts for the same answer."""
    group: str | None = None
    """Examples of one group never straddle two splits."""
    row: int = 0
    """Counted from 1 in its source."""
    columns: Mapping[str, Any] = dataclasses.field(default_factory=dict, hash=False, compare=False)
    """The row as it was read."""
    counterfactual: str | None = None
    """Another prompt, of as many tokens as the row's own."""
    gold: str | None = None
    """What to find in generated text; None where only the answer says it."""
    chat: Chat | None = None
    """Where given, prompts are a user's messages, in the words of the tokenizer's chat template."""
    pair: str | None = None
    """A second text, which a classifier reads beside the prompt."""
    category: str | None = None
    """The kind of example it is, by which figures are shown; None where it has none."""
    shots: tuple[Shot, ...] = ()
    """What is shown before the prompt; no part of what the example is."""
    after: str = ""
    """What stands behind the answer, for a model that reads in both directions."""
    image: Picture | None = None
    """What a classifier looks at instead of the prompt, which is then the image's name and never read."""
    frequency: float | None = None
    """How often the training data held the fact, or a stand-in for it such as page views; None where it is not known."""

    @property
    def identity(self) -> tuple[object, ...]:
        """What makes two examples the same: all that is asked, in whatever order its choices stand, and the answer.

        Of an image that is what it holds, and not its name.
        """
        system = None if self.chat is None else self.chat.system
        choices = None if self.choices is None else tuple(sorted(self.choices))
        asked = self.prompt if self.image is None else self.image
        return (system, asked, self.pair, choices, self.answer)


def continuations_of(example: Example) -> tuple[str, ...]:
    """Return what may follow a prompt: the choices, or the answer where there are none."""
    return example.choices or (example.answer,)


def all_continuations(examples: Sequence[Example]) -> list[tuple[int, int, str]]:
    """Return every continuation: the index of its example, which of that one's it is, and its text."""
    return [
        (owner, index, continuation)
        for owner, example in enumerate(examples)
        for index, continuation in enumerate(continuations_of(example))
    ]


def group_key(group: str) -> str:
    """Return what a group is compared by: its name without accents, case and repeated spaces.

    >>> group_key("Reykjavík") == group_key(" REYKJAVIK")
    True
    """
    plain = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", group).casefold()).translate(ACCENTS)
    return " ".join(plain.split())


def group_indices(examples: Sequence[Example]) -> NDArray[np.int64]:
    """Number the groups of examples, (examples,); an example without one is a group of its own."""
    numbers: dict[object, int] = {}
    keys = (index if example.group is None else group_key(example.group) for index, example in enumerate(examples))
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int64)


def categories_of(examples: Sequence[Example]) -> tuple[str, ...] | None:
    """Return the category of each example, `other` where it has none; None where no example has one."""
    if all(example.category is None for example in examples):
        return None
    return tuple(OTHER if example.category is None else example.category for example in examples)


def gold_of(example: Example, settings: GenerateSettings, *, where: str) -> str:
    """Return what a generated answer is compared with: the example's gold, or what is extracted from its answer.

    Args:
        example: with a right answer.
        settings: how answers are read.
        where: what to call it in an error.

    Raises:
        TaskError: nothing is found in the answer, or no number where numbers are compared.
    """
    if example.gold is not None:
        gold, source = example.gold.strip(), "gold"
    else:
        found = extract(until_stop(example.answer, settings), settings)
        if found is None:
            raise TaskError(
                f"{where}: the pattern in generate.extract finds nothing in the answer {quoted(example.answer)}; "
                "correct it, or give a template in generate.gold."
            )
        gold, source = found.strip(), "gold answer"
    if not gold:
        raise TaskError(f"{where}: the {source} is empty; fill its column or drop the row.")
    if settings.match == "number" and last_number(gold) is None:
        raise TaskError(
            f"{where}: match: number needs a number in the {source}, not {quoted(gold)}; correct or drop the row."
        )
    return gold
