"""What is to be improved, at what, and from where: all that whoever chooses needs, and no test example."""

import dataclasses
import functools

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from strop.anatomy import Anatomy
from strop.checkpoints import BaseIdentity, identify
from strop.errors import InterventionError
from strop.interventions import attachments_of
from strop.interventions.interfaces import Decompose
from strop.linalg import DecompositionCache
from strop.proving.choice import Start
from strop.proving.options import RunOptions
from strop.tasks import Task


@dataclasses.dataclass(frozen=True, kw_only=True)
class Assignment:
    """A model, its tokenizer, a task and a start.

    Raises:
        InterventionError: something is attached to the model, or the start's head does not fit it.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    task: Task
    anatomy: Anatomy
    start: Start
    decompose: Decompose

    def __post_init__(self) -> None:
        refuse_attached(self.model)
        if self.start.head is not None:
            self.start.head.check(self.model)

    @functools.cached_property
    def base(self) -> BaseIdentity:
        """Which model it is: every weight is read for that, once for all who ask."""
        return identify(self.model)

    @classmethod
    def of(
        cls, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, task: Task, options: RunOptions
    ) -> "Assignment":
        """Return what a run with these options is about.

        Args:
            model: as it is, with nothing attached.
            tokenizer: its fast tokenizer.
            task: from `load_task`.
            options: of the run.

        Raises:
            InterventionError: something is attached to the model.
            BaseMismatchError: the recipe to begin with was made for another model.
            UnknownArchitectureError: no family covers the model.
        """
        given = cls(
            model=model,
            tokenizer=tokenizer,
            task=task,
            anatomy=Anatomy.of(model, family=options.family),
            start=Start.of(options.after),
            decompose=options.decompositions or DecompositionCache(),
        )
        if options.after is not None:
            options.after.check(model, family=options.family)
        return given


def refuse_attached(model: PreTrainedModel) -> None:
    """Raise InterventionError if something is attached to a model, which is then no base.

    Args:
        model: that is to be improved, or to write.
    """
    if attachments_of(model):
        raise InterventionError("Something is attached to this model already; detach it first.")
