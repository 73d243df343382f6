"""What effects are estimated on: a task's examples, or plain text."""

from collections.abc import Sequence
from typing import Protocol

from transformers import PreTrainedModel

from strop.anatomy import Anatomy
from strop.scoring import Batch


class Sample(Protocol):
    """Sequences in batches, with the positions whose next tokens make the loss; a `Scorer` is one."""

    @property
    def model(self) -> PreTrainedModel:
        """What reads them."""
        ...

    @property
    def anatomy(self) -> Anatomy:
        """The model's."""
        ...

    @property
    def batches(self) -> Sequence[Batch]:
        """The sequences."""
        ...

    @property
    def example_count(self) -> int:
        """How many there are."""
        ...
