"""ReFT's interventions: learned edits of hidden states inside a low-rank subspace, all one formula with parts left out."""

import copy
import dataclasses
import functools
import math
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from strop.anatomy import StreamSite
from strop.errors import InterventionError, UsageError
from strop.interventions.positions import Positions
from strop.linalg import orthonormal_rows

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


@dataclasses.dataclass(frozen=True)
class LowRankEdit:
    """Edit hidden states inside a learned subspace, at chosen positions.

    loreft: h + Rᵀ(W h + b − R h); direft: h + W₂ᵀ(W h + b); noreft: h + W₂ᵀ(W h + b − W₂ h); consreft: h + Rᵀ(b − R h);
    lobireft: h + Rᵀ b; orthonormal_direft: h + Rᵀ(W h + b), with R Rᵀ = I
    (Wu, Arora et al., ReFT, arXiv 2404.03592, section 3.2 and Table 17)

    Its learned tensors lie beside it in a recipe, in float32: `basis` (rank, hidden), the free matrix whose rows are made
    orthonormal where the formula asks for R; `source` (rank, hidden), W; `bias` (rank,), b.

    Args:
        site: which hidden states.
        method: one of `FORMULAS`.
        rank: of the subspace.
        positions: which tokens.
        activation: applied to W h + b.
        subspaces: names and ranks of parts of the subspace that can be trained and switched by themselves, in the order
            of their rows; together they make up the rank. None by default.

    Raises:
        UsageError: an unknown method or activation, a rank below 1, or subspaces that do not make up the rank.

    >>> print(LowRankEdit(StreamSite(10), "loreft", rank=8, positions=Positions.parse("f7+l7")))
    layer 10 block, loreft of rank 8 at f7+l7
    """

    site: StreamSite
    method: str
    rank: int
    positions: Positions
    activation: Activation = "linear"
    subspaces: tuple[tuple[str, int], ...] = ()

    def __post_init__(self) -> None:
        if self.method not in FORMULAS:
            raise UsageError(f"'{self.method}' is not a method of editing hidden states ({', '.join(FORMULAS)}).")
        if self.activation not in ACTIVATIONS:
            raise UsageError(f"activation is one of {', '.join(ACTIVATIONS)}, not '{self.activation}'.")
        if self.activation != "linear" and not self.formula.reads:
            raise UsageError(f"{self.method} computes nothing from the hidden state, so it has no activation.")
        if self.rank < 1:
            raise UsageError(f"The rank of an edit is 1 or more, not {self.rank}.")
        names = [name for name, _ in self.subspaces]
        if any(rank < 1 for _, rank in self.subspaces) or len(set(names)) < len(names) or not all(names):
            raise UsageError("Subspaces have names of their own and ranks of 1 or more.")
        if self.subspaces and sum(rank for _, rank in self.subspaces) != self.rank:
            raise UsageError(
                f"The ranks of the subspaces ({', '.join(f'{name} {rank}' for name, rank in self.subspaces)}) do not add "
                f"up to the rank, {self.rank}."
            )

    @property
    def formula(self) -> Formula:
        """Which parts its formula has."""
        return FORMULAS[self.method]

    def __str__(self) -> str:
        return f"{self.site}, {self.method} of rank {self.rank} at {self.positions}"

    def parameter_count(self, hidden_size: int) -> int:
        """Return how many numbers it learns: 2·r·d + r where it reads the hidden state, else r·d + r."""
        return self.rank * (hidden_size * (2 if self.formula.reads else 1) + 1)

    def initial_tensors(
        self, hidden_size: int, *, init: Initialisation = "identity", generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        """Return the tensors training begins with.

        `paper` draws R at random among orthonormal frames and the rest as torch's Linear does, as the published code: the
        first step sees an edit that is not nothing. `identity` begins with an edit that leaves every state as it is.

        Args:
            hidden_size: d.
            init: which of the two.
            generator: the source of randomness.

        Raises:
            UsageError: the rank is above the hidden size, or this edit cannot begin as the identity.
        """
        self.refuse_rank_above(hidden_size)
        bound = 1 / math.sqrt(hidden_size)

        def uniform(*shape: int) -> Tensor:
            return (torch.rand(*shape, generator=generator) * 2 - 1) * bound

        if self.formula.orthonormal:
            basis = orthonormal_rows(torch.randn(self.rank, hidden_size, generator=generator)).contiguous()
        else:
            basis = uniform(self.rank, hidden_size)
        if init == "paper":
            bias = uniform(self.rank) if self.formula.reads else torch.rand(self.rank, generator=generator)
            tensors = {"basis": basis, "source": uniform(self.rank, hidden_size), "bias": bias}
        else:
            self._refuse_identity()
            rows = orthonormal_rows(basis) if self.formula.orthonormal else basis.clone()
            source = rows if self.formula.subtracts else torch.zeros(self.rank, hidden_size)
            tensors = {"basis": basis, "source": source, "bias": torch.zeros(self.rank)}
        return {name: tensors[name].contiguous() for name in self.formula.tensors}

    def _refuse_identity(self) -> None:
        constant = self.formula.subtracts and not self.formula.reads
        bent = self.formula.subtracts and self.activation != "linear"
        never_zero, stuck = self.activation == "sigmoid", self.activation == "relu" and not bent
        if constant or bent or never_zero or stuck:
            why = "its activation bends what it would have to put back" if bent else "it puts a constant in its place"
            why = "a sigmoid is never zero" if never_zero else why
            why = "a relu has no slope at zero and nothing would ever be learned" if stuck else why
            raise UsageError(f"{self.method} cannot begin as the identity, for {why}; use init paper.")

    def refuse_rank_above(self, hidden_size: int) -> None:
        """Raise UsageError if the subspace would not fit into hidden states of this size."""
        if self.rank > hidden_size:
            raise UsageError(
                f"{self.site}: a subspace of rank {self.rank} does not fit into hidden states of size {hidden_size}; choose "
                f"a rank of at most {hidden_size}."
            )

    def refuse_other_subspaces(self, names: Collection[str] | None) -> None:
        """Raise UsageError if a name is of no subspace of this edit; None names all."""
        known = [name for name, _ in self.subspaces]
        for name in names or ():
            if name not in known:
                has = f"it has {', '.join(known)}" if known else "it has none"
                raise UsageError(f"{self.site}: the edit has no subspace '{name}'; {has}.")

    def checked(self, tensors: Mapping[str, Tensor], hidden_size: int) -> None:
        """Make sure that tensors are the learned ones of this edit.

        Raises:
            InterventionError: one is missing, of another shape, or not made of finite numbers.
        """
        for name in self.formula.tensors:
            wanted = (self.rank,) if name == "bias" else (self.rank, hidden_size)
            found = tensors.get(name)
            if found is None or tuple(found.shape) != wanted:
                shape = "missing" if found is None else f"of shape {tuple(found.shape)}"
                raise InterventionError(
                    f"{self.site}: {self.method} of rank {self.rank} needs a tensor {name} of shape {wanted} for this model, "
                    f"and the recipe's is {shape}; train anew, or load the model it was trained on."
                )
            if not (found.is_floating_point() and bool(torch.isfinite(found).all())):
                raise InterventionError(f"{self.site}: its {name} is not made of finite numbers; train anew.")

    def to_json(self, shape: tuple[int, int]) -> dict[str, Any]:
        """Return what a recipe writes: the decision, with its number of learned parameters."""
        subspaces = {"subspaces": dict(self.subspaces)} if self.subspaces else {}
        return {
            "method": self.method,
            **self.site.to_json(),
            "positions": str(self.positions),
            "rank": self.rank,
            "activation": self.activation,
            **subspaces,
            "parameters": self.parameter_count(shape[0]),
        }

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> "LowRankEdit":
        """Return the intervention a recipe's entry describes."""
        layer, rank, subspaces = entry["layer"], entry["rank"], entry.get("subspaces", {})
        if type(layer) is not int or type(rank) is not int:
            raise UsageError(f"its layer and rank are whole numbers, not {layer!r} and {rank!r}.")
        if not isinstance(subspaces, dict) or not all(type(part) is int for part in subspaces.values()):
            raise UsageError("its subspaces are not names with whole numbers.")
        return cls(
            StreamSite.from_json(entry),
            str(entry["method"]),
            rank=rank,
            positions=Positions.parse(str(entry["positions"])),
            activation=entry.get("activation", "linear"),
            subspaces=tuple(subspaces.items()),
        )


class EditModule(nn.Module):
    """A low-rank edit with its numbers: (tokens, hidden) → (tokens, hidden).

    Its parameters stay in the precision they were made in, whatever the model is cast to; the edit is computed in that
    precision and cast back.

    Args:
        edit: the decision.
        tensors: its learned tensors, by name.
        hidden_size: d.

    Raises:
        InterventionError: the tensors do not fit.
    """

    def __init__(self, edit: LowRankEdit, tensors: Mapping[str, Tensor], hidden_size: int) -> None:
        super().__init__()
        edit.checked(tensors, hidden_size)
        self.edit = edit
        sizes = [rank for _, rank in edit.subspaces] or [edit.rank]
        for name in edit.formula.tensors:
            kept = tensors[name].detach()
            kept = kept if kept.dtype == torch.float64 else kept.float()
            own = [part.clone(memory_format=torch.contiguous_format) for part in torch.split(kept, sizes)]
            # contiguous, as they come back from a file: with other strides matrix products differ in their last bits
            self.register_module(name, nn.ParameterList(nn.Parameter(part, requires_grad=False) for part in own))
        self.dropout = 0.0
        """The share of the edit's entries that training sets to zero."""
        self.drops_state = False
        """Dropout falls on the whole edited state, as in the published code, and not on the edit alone."""
        self._active = torch.ones(edit.rank, dtype=torch.bool)

    def __str__(self) -> str:
        return str(self.edit)

    def train_subspaces(self, names: Collection[str] | None) -> None:
        """Let the parameters of some subspaces learn, and only those; all by default."""
        wanted = self._rows_of(names)
        for name in self.edit.formula.tensors:
            for part, learns in zip(self._parts(name), wanted, strict=True):
                part.requires_grad_(learns)

    def use_subspaces(self, names: Collection[str] | None) -> None:
        """Edit inside some subspaces, and only those; all by default.

        Raises:
            UsageError: there is no such subspace.
        """
        sizes = [rank for _, rank in self.edit.subspaces] or [self.edit.rank]
        self._active = torch.cat(
            [torch.full((size,), used) for size, used in zip(sizes, self._rows_of(names), strict=True)]
        )

    def _rows_of(self, names: Collection[str] | None) -> list[bool]:
        if names is None:
            return [True] * max(1, len(self.edit.subspaces))
        self.edit.refuse_other_subspaces(names)
        return [name in names for name, _ in self.edit.subspaces] or [False]  # without subspaces all learns or nothing

    def _parts(self, name: str) -> Iterator[nn.Parameter]:
        yield from self.get_submodule(name).parameters()

    def _whole(self, name: str) -> Tensor:
        parts = tuple(self._parts(name))
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """What a recipe keeps of it, detached."""
        return {name: self._whole(name).detach().clone() for name in self.edit.formula.tensors}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over learned tensors, in place.

        Raises:
            InterventionError: they do not fit.
        """
        self.edit.checked(tensors, self._whole("basis").shape[1])
        with torch.no_grad():
            for name in self.edit.formula.tensors:
                parts = list(self._parts(name))
                for part, kept in zip(parts, torch.split(tensors[name], [len(part) for part in parts]), strict=True):
                    part.copy_(kept)

    def basis_rows(self) -> Tensor:
        """Return B, (rank, hidden): with orthonormal rows where the formula asks for them."""
        basis = self._whole("basis")
        return orthonormal_rows(basis) if self.edit.formula.orthonormal else basis

    def forward(self, states: Tensor) -> Tensor:
        """Return edited states, (tokens, hidden), in the dtype of those given."""
        formula = self.edit.formula
        with torch.autocast(states.device.type, enabled=False):
            rows = self.basis_rows()
            given = states.to(rows.dtype)
            bias = self._whole("bias")
            if formula.reads and formula.subtracts and self.edit.activation == "linear":
                value = given @ (self._whole("source") - rows).T + bias
            else:
                value = (
                    ACTIVATIONS[self.edit.activation](given @ self._whole("source").T + bias) if formula.reads else bias
                )
                value = value - given @ rows.T if formula.subtracts else value.expand(given.shape[0], -1)
            if not bool(self._active.all()):
                value = value * self._active.to(value)
            change = value @ rows
            if self.dropout and self.training:
                if self.drops_state:
                    return functional.dropout(given + change, self.dropout).to(states.dtype)
                change = functional.dropout(change, self.dropout)
            return (given + change).to(states.dtype)

    @property
    def device(self) -> torch.device:
        """Where its numbers are."""
        return next(self.parameters()).device

    def on(self, device: torch.device) -> Callable[[Tensor], Tensor]:
        """Return the same edit with its numbers on another device, from where gradients come back to these."""
        tensors = {name: parameter.to(device) for name, parameter in self.named_parameters()}
        return functools.partial(functional_call, copy.deepcopy(self), tensors)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "EditModule":
        """Follow the model to another device, but not to another precision."""

        def moved(tensor: Tensor) -> Tensor:
            return tensor.to(fn(tensor.new_empty(0)).device)

        super()._apply(moved, recurse)  # type: ignore[no-untyped-call]
        return self
