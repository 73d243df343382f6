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
├── TrainingError              a training that cannot go on
└── RunError                   a run folder that cannot be started, resumed or read

StropWarning                   what a user should know and what stops nothing

Inner code states the fact; the message that reaches a person names what, where and the remedy in one sentence.
"""


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
    return text.splitlines()[0].rstrip(".") if text else type(error).__name__
