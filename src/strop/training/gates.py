"""Pruning by learning: which singular values to remove, chosen anew at every step by all gradients so far."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from strop.interventions import Intervention, SingularValuePruning, SpectrumScaling

RISE = 0.5
"""The share of the steps over which the number of removals rises to what it ends with."""


class Gates(torch.optim.Optimizer):
    """An optimiser of changes that are 0 or −1: each singular value stays as it is, or goes.

    s_t = s_{t−1} + η_t ∂loss/∂d and d_t = −1 at the k_t largest s_t that are above 0, else 0: dual averaging (Xiao, JMLR 11,
    2010) with a bound on how many entries differ from 0. To first order, −∂loss/∂d is what removing a component does to the
    loss, wherever the gate stands, so that a gate that was closed too early opens again. k_t rises evenly from 0. Only the
    order of the s matters, and so the rate weighs the steps against each other, and nothing else.

    Args:
        parameters: the changes, which begin at 0.
        removals: most entries that are −1 in the end, all parameters together.
        steps: how many steps there will be.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], *, removals: int, steps: int) -> None:
        super().__init__(parameters, {"lr": 1.0, "taken": 0})
        self._removals, self._rise = removals, max(1, round(RISE * steps))

    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Add the gradients to what speaks for removing, and set every gate."""
        with torch.no_grad():
            for group in self.param_groups:
                group["taken"] += 1
                for parameter in group["params"]:
                    remembered = self.state[parameter]
                    score = remembered.setdefault("score", torch.zeros_like(parameter))
                    if parameter.grad is not None:
                        score.add_(parameter.grad, alpha=group["lr"])
            self._set_gates(round(self._removals * min(1.0, self.param_groups[0]["taken"] / self._rise)))

    def _set_gates(self, count: int) -> None:
        parameters = [parameter for group in self.param_groups for parameter in group["params"]]
        scores = torch.cat([self.state[parameter]["score"].flatten().cpu() for parameter in parameters])
        largest = scores.topk(count).indices
        change = torch.zeros_like(scores)
        change[largest[scores[largest] > 0]] = -1
        sizes = [parameter.numel() for parameter in parameters]
        for parameter, own in zip(parameters, torch.split(change, sizes), strict=True):
            parameter.copy_(own.view_as(parameter))


def as_prunings(
    interventions: Sequence[Intervention], tensors: Sequence[Mapping[str, Tensor]]
) -> tuple[tuple[Intervention, ...], tuple[Mapping[str, Tensor], ...]]:
    """Return edits with every scaling that only removes components as the pruning it is, and none that changes nothing.

    Args:
        interventions: what was learned.
        tensors: of each.
    """
    found: list[tuple[Any, Mapping[str, Tensor]]] = []
    for entry, own in zip(interventions, tensors, strict=True):
        removed = entry.removed_by(own) if isinstance(entry, SpectrumScaling) else None
        if removed is None:
            found.append((entry, own))
        elif removed:
            found.append((SingularValuePruning(cast(SpectrumScaling, entry).site, removed), {}))
    return tuple(entry for entry, _ in found), tuple(own for _, own in found)
