"""An edit of hidden states as it runs: a decision, with the module that has its numbers."""

import copy
import dataclasses
import functools
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.func import functional_call

from strop.interventions.interfaces import StateIntervention


@dataclasses.dataclass(frozen=True, eq=False)
class StateEdit:
    """An intervention in hidden states, with the module that edits them."""

    entry: StateIntervention
    module: nn.Module

    def on(self, device: torch.device, *, replica: bool) -> Callable[[Tensor], Tensor]:
        """Return what edits states on a device.

        Args:
            device: where the states are.
            replica: several threads edit at once, each on a device of its own. Else the module moves there: one that does
                not learn is no part of the model, and is not moved with it.
        """
        first = next(tensors_of(self.module), None)
        if first is None or first[1].device == device:
            return self.module
        if not replica:
            return self.module.to(device)
        moved = {name: tensor.to(device) for name, tensor in tensors_of(self.module)}
        return functools.partial(functional_call, copy.deepcopy(self.module), moved)


def tensors_of(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield a module's parameters and buffers by name."""
    yield from module.named_parameters()
    yield from module.named_buffers()
