"""Whether what a model says of its next tokens are numbers."""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import LogitsProcessor, PreTrainedModel

from strop.errors import NotFiniteError
from strop.scoring.place import place_of
from strop.tasks.examples import Example


def refuse_not_finite(model: PreTrainedModel, example: Example) -> None:
    """Raise NotFiniteError for an example that a model's figures of are NaN or infinite.

    Args:
        model: whose figures they are.
        example: the first of them.
    """
    damaged = ", or fetch its weights again" if model.dtype in (torch.float32, torch.bfloat16) else ""
    raise NotFiniteError(
        f"{place_of(example)}: the model's probabilities are not finite; load it in float32 or bfloat16{damaged}."
    )


class FiniteLogits(LogitsProcessor):  # type: ignore[misc]
    """Lets a model's predictions through as they are, and refuses a row of a batch where they are not finite.

    Args:
        model: that predicts.
        examples: of the rows.
    """

    def __init__(self, model: PreTrainedModel, examples: Sequence[Example]) -> None:
        self._model, self._examples = model, examples

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:  # noqa: ARG002
        """Return the scores, (rows, vocabulary).

        Raises:
            NotFiniteError: the likeliest token of a row has none.
        """
        likeliest = scores.amax(-1)  # of NaN it is NaN
        bad = (~torch.isfinite(likeliest)).nonzero()
        if len(bad):
            refuse_not_finite(self._model, self._examples[int(bad[0, 0])])
        return scores
