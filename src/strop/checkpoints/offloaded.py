"""Weights that accelerate keeps in memory or on disk, and fetches for each call of their module."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn


def placing_hooks(module: "nn.Module") -> Iterator[Any]:
    """Yield accelerate's hooks on a module that say where it runs, those in a chain one by one."""
    hook = getattr(module, "_hf_hook", None)
    for own in getattr(hook, "hooks", [hook]):
        if hasattr(own, "execution_device"):
            yield own


def fetched(model: "nn.Module", name: str, tensor: "Tensor") -> "Tensor":
    """Return what one of a model's tensors holds: itself, or where it is offloaded, what its module's hook would fetch.

    Args:
        model: the whole of it.
        name: the tensor's, inside the model.
        tensor: what the model has by that name.
    """
    if not tensor.is_meta:
        return tensor
    inner = name.split(".")
    for count in reversed(range(len(inner))):  # the module itself first, then those around it, which may fetch for it
        for hook in placing_hooks(model.get_submodule(".".join(inner[:count]))):
            stored = getattr(hook, "weights_map", None)
            if stored is not None and ".".join(inner[count:]) in stored:
                found: Tensor = stored[".".join(inner[count:])]
                return found
    return tensor
