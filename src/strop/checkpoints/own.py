"""A model's own parameters, whatever is attached to it: what stands in for some of them says what they were."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel

ATTACHED = "_strop_attachments"
"""The model's attribute that lists what is attached to it, the first first; a deep copy of the model has copies of its own."""


class Overlay(Protocol):
    """What is attached to a model."""

    def adds(self, parameter: "nn.Parameter") -> bool:
        """Return whether a parameter is on the model only while this is attached."""
        ...

    def original_of(self, parameter: "nn.Parameter") -> "Tensor | None":
        """Return the tensor a parameter held before, where this gave it another."""
        ...


def own_parameters(model: "PreTrainedModel") -> Iterator[tuple[str, "Tensor"]]:
    """Yield a model's own parameters by name, as they are without anything attached."""
    for name, parameter in model.named_parameters():
        if not any(overlay.adds(parameter) for overlay in _overlays(model)):
            yield name, own_tensor(model, parameter)


def own_tensor(model: "PreTrainedModel", parameter: "nn.Parameter") -> "Tensor":
    """Return what one of a model's parameters holds without anything attached."""
    originals = (overlay.original_of(parameter) for overlay in _overlays(model))
    return next((original for original in originals if original is not None), parameter)


def _overlays(model: "PreTrainedModel") -> tuple[Overlay, ...]:
    listed: tuple[Overlay | None, ...] = model.__dict__.get(ATTACHED, ())
    return tuple(overlay for overlay in listed if overlay is not None)
