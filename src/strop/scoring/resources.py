"""What a batch and what is kept in memory may take: one value, chosen by device and memory, settable in one place."""

import contextlib
import contextvars
import dataclasses
from collections.abc import Iterator

import torch
from transformers import PreTrainedModel

from strop.anatomy import input_device, input_embeddings
from strop.errors import UsageError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Resources:
    """Most that a batch, and what is kept for reuse, may take.

    The defaults are measured on two CPU cores: larger batches gain nothing there, and memory grows. They change how fast a
    figure is had and never which one, rounding aside.

    Raises:
        UsageError: a size that is not positive.

    >>> Resources(batch_tokens=4096).scored_positions
    192
    """

    batch_tokens: int = 1024
    """Tokens of a batch, padding included."""
    scored_positions: int = 192
    """Positions of a batch whose logits are wanted: each costs a row as long as the vocabulary."""
    generated_tokens: int = 8192
    """Tokens of a batch that generates, all new ones included: each keeps its keys and values in memory."""
    state_bytes: int = 512 * 2**20
    """Hidden states below an edit that are kept between two passes over the same examples."""
    effect_bytes: int = 256 * 2**20
    """Hidden states at all layers of the sample that effects are estimated on; those beyond wait in a temporary file."""
    decomposition_bytes: int = 256 * 2**20
    """Decompositions held in memory; those beyond are asked for again, from the cache on disk."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if getattr(self, field.name) < 1:
                raise UsageError(f"{field.name} is 1 or more, not {getattr(self, field.name)}.")

    @classmethod
    def of(cls, model: PreTrainedModel) -> "Resources":
        """Return what is set for this context, else what fits a model's device.

        Args:
            model: where it is now.
        """
        chosen = _SET.get()
        if chosen is not None:
            return chosen
        vocabulary = getattr(input_embeddings(model), "num_embeddings", 1)  # of images there is none
        return on_device(input_device(model), vocabulary=int(vocabulary))


CPU = Resources()
"""What two cores do best with."""

_SET: contextvars.ContextVar[Resources | None] = contextvars.ContextVar("strop_resources", default=None)


@contextlib.contextmanager
def using(resources: Resources | None) -> Iterator[None]:
    """Set the resources for a block, in this thread; None leaves the choice to the device.

    >>> with using(Resources(batch_tokens=256)):
    ...     pass  # strop.evaluate(model, tokenizer, task)
    """
    token = _SET.set(resources)
    try:
        yield
    finally:
        _SET.reset(token)


def on_device(device: torch.device, *, vocabulary: int) -> Resources:
    """Return what fits a device: an accelerator's batches grow with its free memory, up to 64 times the CPU's.

    Args:
        device: where the model is.
        vocabulary: tokens; a scored position costs two float32 rows of that length.
    """
    free_bytes = _free_bytes(device)
    if free_bytes is None:
        return CPU
    times = max(1, min(64, free_bytes // 2**30))
    positions = int(free_bytes // 16 // (8 * vocabulary))
    return Resources(
        batch_tokens=CPU.batch_tokens * times,
        scored_positions=max(CPU.scored_positions, min(CPU.scored_positions * times, positions)),
        generated_tokens=CPU.generated_tokens * times,
        state_bytes=max(CPU.state_bytes, free_bytes // 8),
        effect_bytes=max(CPU.effect_bytes, free_bytes // 8),
        decomposition_bytes=max(CPU.decomposition_bytes, free_bytes // 8),
    )


def _free_bytes(device: torch.device) -> int | None:
    """Return an accelerator's free memory; None for a CPU, or where it is not said."""
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(
            device
        )  # PyTorch's own, and free to use
        return int(torch.cuda.mem_get_info(device)[0]) + kept
    if device.type == "mps":
        return int(torch.mps.recommended_max_memory()) - int(torch.mps.driver_allocated_memory())
    return None
