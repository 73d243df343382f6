"""How a parameter is stored: as numbers that can be edited, quantised, offloaded, or computed from other parameters."""

import dataclasses
import itertools
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from transformers import PreTrainedModel

from strop.checkpoints import placing_hooks

PLAIN = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
"""The dtypes of numbers that are what they stand for; those of 8 bits and fewer need a scale that lies elsewhere."""

COMPUTED = "computed at each call"

_REMEDIES = {
    "quantised": ", and an edit of weights needs its real values; load the model dequantised or in its original precision, or "
    "edit hidden states, as LoReFT does",
    "offloaded": " to disk or memory, and fetched for each call; load the model without offloading, or edit hidden states, as "
    "LoReFT does",
    "without numbers": ", for it is on the meta device; load the model onto a real one",
    COMPUTED: ", so that neither an edit nor a checkpoint would hold; make it permanent first, as remove_parametrizations or "
    "prune.remove of torch.nn.utils does",
    "spread over processes": ", and an edit needs the whole of it; load the model in one",
    "no matrix of floating-point numbers": " and cannot be edited",
}


@dataclasses.dataclass(frozen=True)
class Storage:
    """How a parameter is stored that cannot be edited in place."""

    kind: str
    """What it is: quantised, offloaded, …"""
    how: str = ""
    """By what, in a word or two."""

    def __str__(self) -> str:
        return f"{self.kind} ({self.how})" if self.how else self.kind

    def refusal(self, name: str) -> str:
        """Return why a parameter of this name cannot be edited, and what to do, as a sentence."""
        return f"{name} is {self}{_REMEDIES[self.kind]}."


ABSENT = Storage("absent")


def storage_of(model: PreTrainedModel, module: nn.Module, parameter: str) -> Storage | None:
    """Return how a module stores a parameter where that cannot be edited in place; None where it can.

    Each module is asked, for some of a quantised or an offloaded model's are often left as they were.

    Args:
        model: the whole of it.
        module: one that holds a matrix.
        parameter: the parameter's name in it.
    """
    held = getattr(module, parameter, None)
    if parametrize.is_parametrized(module, parameter):
        chain: Any = module.parametrizations
        return Storage(COMPUTED, type(chain[parameter][0]).__name__)
    if _is_quantised(model, module, held):
        return Storage("quantised", _method(model, module, held))
    if held is None:
        return ABSENT
    if type(held).__module__.startswith("torch.distributed"):
        return Storage("spread over processes", type(held).__name__)
    if isinstance(held, Tensor) and (hasattr(module, f"{parameter}_orig") or hasattr(module, f"{parameter}_g")):
        return Storage(COMPUTED)
    if type(held) is not nn.Parameter:
        return Storage("no matrix of floating-point numbers", type(held).__name__)
    if held.is_meta:
        return Storage("offloaded" if any(True for _ in placing_hooks(module)) else "without numbers")
    return None


def device_of(module: nn.Module) -> torch.device | None:
    """Return the device a module runs on, as accelerate's hook says or its parameters do; None where neither does."""
    parts = list(module.modules())
    told = [hook.execution_device for part in parts for hook in placing_hooks(part)]
    device = next((each for each in told if each is not None), None)
    if device is not None:
        return torch.device(device)
    return next((tensor.device for part in parts for tensor in _own_tensors(part) if not tensor.is_meta), None)


def _own_tensors(module: nn.Module) -> Iterator[Tensor]:
    return itertools.chain(module.parameters(recurse=False), module.buffers(recurse=False))


def _is_quantised(model: PreTrainedModel, module: nn.Module, held: Any) -> bool:
    if isinstance(held, Tensor):
        narrow = held.dtype not in PLAIN
        return narrow or (hasattr(held, "__tensor_flatten__") and not type(held).__module__.startswith("torch."))
    if held is not None:
        return callable(held) and not isinstance(held, nn.Module)  # torch.ao's modules compute it
    return next(_packed(module), None) is not None


def _packed(module: nn.Module) -> Iterator[Tensor]:
    """Yield what a module keeps several small numbers in, one beside the other."""
    kinds = (torch.int8, torch.uint8, torch.int16, torch.int32, torch.float8_e4m3fn, torch.float8_e5m2)
    return (tensor for tensor in _own_tensors(module) if tensor.dtype in kinds and tensor.ndim > 1)


def _method(model: PreTrainedModel, module: nn.Module, held: Any) -> str:
    """Return what a weight is quantised by: what the model says of itself, the library, or else the kind of number."""
    config = getattr(getattr(model, "hf_quantizer", None), "quantization_config", None)
    method = getattr(config, "quant_method", None)
    if method is not None:
        return str(getattr(method, "value", method))
    libraries = (kind.__module__.split(".")[0] for kind in (type(held), type(module)))
    library = next((name for name in libraries if name not in ("torch", "builtins", "transformers")), None)
    if library is not None:
        return library
    numbers = held if isinstance(held, Tensor) else next(_packed(module), None)
    return str(numbers.dtype).removeprefix("torch.") if numbers is not None else type(module).__module__[:8]
