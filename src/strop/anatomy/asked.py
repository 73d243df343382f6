"""Which parameters of a model ask for a gradient, to be restored although accelerate may have exchanged them meanwhile."""

from collections.abc import Collection

import torch
from torch import nn


class AskedForGradients:
    """What some parameters asked for, until `restore`.

    Parameters that are offloaded are others after each call, so that they are known by their modules too.
    """

    def __init__(self) -> None:
        self._asked: dict[nn.Parameter, tuple[nn.Module, str, bool]] = {}

    def __bool__(self) -> bool:
        return bool(self._asked)

    def note(self, model: nn.Module, parameters: Collection[nn.Parameter] | None = None) -> None:
        """Note what parameters ask for now, unless that is known already.

        Args:
            model: whose they are.
            parameters: all of the model's by default.
        """
        wanted = set(parameters) if parameters is not None else None
        for module in model.modules():
            for name, parameter in module.named_parameters(recurse=False):
                if wanted is None or parameter in wanted:
                    self._asked.setdefault(parameter, (module, name, parameter.requires_grad))

    def ask_for_none(self) -> None:
        """Let none of those that were noted ask for a gradient."""
        for parameter in self._asked:
            parameter.requires_grad_(False)

    def restore(self) -> None:
        """Let each ask for what it asked for, and forget it."""
        for parameter, (module, name, asked) in self._asked.items():
            now = module._parameters.get(name)
            if now is None or not now.is_meta:
                parameter.requires_grad_(asked)
            elif now.is_inference():  # it was offloaded in inference mode, and must not change
                module._parameters[name] = nn.Parameter(torch.empty_like(now), requires_grad=asked)
            else:
                now.requires_grad_(asked)
        self._asked.clear()
