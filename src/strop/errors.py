"""Everything that can go wrong, as one tree.

StropError
├── UsageError                 a call that cannot mean anything: a setting out of range, two that exclude each other
├── CheckpointError            a model that cannot be found, fetched or read
│   └── PullError              fetching a model of the zoo failed
├── DecompositionError         a matrix no solver could decompose
├── AnatomyError               a model whose parts are not where they were expected
│   ├── UnknownArchitectureError
│   ├── SiteError              an address that is not in this model
│   └── UneditableWeightError  a weight that must be left alone: tied, quantised, not a matrix
├── InterventionError          an intervention that cannot be applied or taken off
├── RecipeError                a recipe folder that cannot be read
│   └── BaseMismatchError      a recipe made for another base model
├── TaskError                  a task file, or a row of its data, that does not fit
│   └── EndlessError           a template or a pattern in it that computes without end
├── NotFiniteError             a model whose probabilities are not finite
├── TrainingError              a training that cannot go on
└── RunError                   a run folder that cannot be started, resumed or read

StropWarning                   what a user should know and what stops nothing

Inner code states the fact; the message that reaches a person names what, where and the remedy in one sentence.
"""

import itertools
from collections.abc import Iterable


class StropError(Exception):
    """The root of the tree: catch it to catch all that Strop raises on purpose."""


class UsageError(StropError, ValueError):
    """A call that cannot mean anything."""


class CheckpointError(StropError):
    """A model that cannot be found, fetched or read."""


class PullError(CheckpointError):
    """Fetching a model of the zoo failed."""


class DecompositionError(StropError):
    """A matrix no solver could decompose."""


class AnatomyError(StropError):
    """A model whose parts are not where they were expected."""


class UnknownArchitectureError(AnatomyError):
    """A model of a family nobody has described yet."""


class SiteError(AnatomyError, LookupError):
    """An address that is not in this model."""


class UneditableWeightError(AnatomyError):
    """A weight that must be left alone: tied, quantised, or not a floating-point matrix."""


class InterventionError(StropError):
    """An intervention that cannot be applied or taken off."""


class RecipeError(StropError):
    """A recipe folder that cannot be read."""


class BaseMismatchError(RecipeError):
    """A recipe made for another base model."""


class TaskError(StropError):
    """A task file, or a row of its data, that does not fit."""


class EndlessError(TaskError):
    """A template or a pattern of a task file that computes without end; other rows are not worth the wait."""


class NotFiniteError(StropError):
    """A model whose probabilities are not finite, so that nothing can be said of what it answers."""


class TrainingError(StropError):
    """A training that cannot go on."""


class RunError(StropError):
    """A run folder that cannot be started, resumed or read."""


class StropWarning(UserWarning):
    """What a user should know, and what stops nothing."""


def reason_in(error: BaseException) -> str:
    r"""Return what an error says as a part of a sentence: its first line without a full stop, or the name of its kind.

    >>> reason_in(ValueError("no such file.\nSee the manual.")), reason_in(KeyError())
    ('no such file', 'KeyError')
    """
    text = str(error).strip()
    return shortened(text.splitlines()[0].rstrip("."), most=300) if text else type(error).__name__


def shortened(text: str, *, most: int = 60) -> str:
    r"""Return a text that came from outside as it may stand in a sentence: on one line, printable, and cut if it is long.

    Args:
        text: of a user's file, or of another library.
        most: characters to keep.

    >>> shortened("one\ntwo\x00"), shortened("a" * 9, most=5)
    ('one\\ntwo\\x00', 'aaaa…')
    """
    cut = text if len(text) <= most else f"{text[: most - 1]}…"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in cut)


def quoted(text: str, *, most: int = 60) -> str:
    r"""Return a text in quotes, as `repr` writes it, cut if it is long.

    >>> quoted("it's"), quoted("a" * 9, most=5)
    ('"it\'s"', "'aaaa…'")
    """
    return repr(text if len(text) <= most else f"{text[: most - 1]}…")


def listed(names: Iterable[object], *, most: int = 12) -> str:
    """Return names in a row, the first of them where they are many.

    >>> listed(["prompt", "answer"]), listed(range(20), most=3)
    ('prompt, answer', '0, 1, 2, …')
    """
    shown = [shortened(str(name), most=40) for name in itertools.islice(names, most + 1)]
    return ", ".join([*shown[:most], "…"] if len(shown) > most else shown)
