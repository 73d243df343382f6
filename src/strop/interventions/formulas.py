"""ReFT's methods as one formula, h + Bᵀ(act(W h + b) − B h), with parts left out."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

Activation = Literal["linear", "relu", "gelu", "silu", "tanh", "sigmoid"]
Initialisation = Literal["paper", "identity"]

ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "linear": lambda value: value,
    "relu": functional.relu,
    "gelu": functional.gelu,
    "silu": functional.silu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
}


@dataclasses.dataclass(frozen=True)
class Formula:
    """Which parts of h + Bᵀ(act(W h + b) − B h) a method has."""

    orthonormal: bool
    """B is R, with orthonormal rows; else it is free."""
    reads: bool
    """The new value depends on h, as act(W h + b); else it is b alone."""
    subtracts: bool
    """What h has in the subspace, B h, is taken away."""

    @property
    def tensors(self) -> tuple[str, ...]:
        """The names of its learned tensors."""
        return ("basis", "source", "bias") if self.reads else ("basis", "bias")


FORMULAS: Mapping[str, Formula] = {
    "loreft": Formula(orthonormal=True, reads=True, subtracts=True),
    "direft": Formula(orthonormal=False, reads=True, subtracts=False),
    "noreft": Formula(orthonormal=False, reads=True, subtracts=True),
    "consreft": Formula(orthonormal=True, reads=False, subtracts=True),
    "lobireft": Formula(orthonormal=True, reads=False, subtracts=False),
    "orthonormal_direft": Formula(orthonormal=True, reads=True, subtracts=False),
}
"""The paper's methods (arXiv 2404.03592): sections 3.2 and 3.3, and the ablations of its Table 17."""
