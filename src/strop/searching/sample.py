"""What effects are estimated on: a task's examples, or plain text."""

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor
from transformers import PreTrainedModel

from strop.anatomy import Anatomy, WeightSite
from strop.scoring import Batch


class Part(Protocol):
    """Examples that a model reads at once."""

    @property
    def real(self) -> Tensor:
        """(examples, tokens): which are not padding."""
        ...

    def real_at(self, site: WeightSite) -> Tensor:
        """Return which of the tokens a matrix sees are not padding, (examples, tokens)."""
        ...

    def read_by(self, model: PreTrainedModel) -> None:
        """Let a model's body read them, without its head."""
        ...


class Parts(Protocol):
    """Examples in batches; a `Scorer` is one, and a `ClassScorer`."""

    @property
    def model(self) -> PreTrainedModel:
        """What reads them."""
        ...

    @property
    def anatomy(self) -> Anatomy:
        """The model's."""
        ...

    @property
    def batches(self) -> Sequence[Part]:
        """The examples."""
        ...


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
