"""A low-rank edit with its numbers: what runs on hidden states, and what learns."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from strop.interventions.formulas import ACTIVATIONS, Activation, Formula
from strop.interventions.interfaces import Shape
from strop.interventions.learned import moved_but_not_cast
from strop.linalg import Frames, full_precision, orthonormal_rows, rows_made_orthonormal


class _Decision(Protocol):
    """What the module asks of a `LowRankEdit`."""

    @property
    def rank(self) -> int: ...
    @property
    def activation(self) -> Activation: ...
    @property
    def subspaces(self) -> tuple[tuple[str, int], ...]: ...
    @property
    def formula(self) -> Formula: ...
    def check(self, tensors: Mapping[str, Tensor], shape: Shape) -> None: ...
    def refuse_other_subspaces(self, names: Collection[str] | None) -> None: ...


def frames_together(modules: Iterable[nn.Module]) -> dict[nn.Module, tuple[Tensor, Frames]]:
    """Return B for each of the modules that learn orthonormal rows, made by as few factorisations as their sizes allow.

    Each comes with the frames it is one of, which are not checked yet.

    Args:
        modules: of edits of any method.
    """
    alike: dict[object, list[EditModule]] = {}
    for module in modules:
        if isinstance(module, EditModule) and module.edit.formula.orthonormal and module.learns_basis:
            basis = next(module._parts("basis"))
            alike.setdefault((module.edit.rank, basis.shape[1], basis.dtype, basis.device), []).append(module)
    found: dict[nn.Module, tuple[Tensor, Frames]] = {}
    for same in alike.values():
        frames = rows_made_orthonormal(torch.stack([module._whole("basis") for module in same]))
        found.update((module, (rows, frames)) for module, rows in zip(same, frames.rows.unbind(), strict=True))
    return found


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

    def __init__(self, edit: _Decision, tensors: Mapping[str, Tensor], hidden_size: int) -> None:
        super().__init__()
        edit.check(tensors, (hidden_size, hidden_size))
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
        self._active: Tensor | None = None
        """(rank,): which rows edit; None where all do."""
        self._frame: tuple[object, Tensor] | None = None
        """Of which basis, and B itself."""

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
        wanted = self._rows_of(names)
        active = [torch.full((size,), used) for size, used in zip(sizes, wanted, strict=True)]
        self._active = None if all(wanted) else torch.cat(active)

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
        hidden_size = self._whole("basis").shape[1]
        self.edit.check(tensors, (hidden_size, hidden_size))
        with torch.no_grad():
            for name in self.edit.formula.tensors:
                parts = list(self._parts(name))
                for part, kept in zip(parts, torch.split(tensors[name], [len(part) for part in parts]), strict=True):
                    part.copy_(kept)

    @property
    def learns_basis(self) -> bool:
        """Whether gradients are asked for its basis now."""
        return torch.is_grad_enabled() and any(part.requires_grad for part in self._parts("basis"))

    def basis_rows(self) -> Tensor:
        """Return B, (rank, hidden): with orthonormal rows where the formula asks for them.

        Where nothing is to learn them, these are made once.
        """
        parts = list(self._parts("basis"))
        if not self.edit.formula.orthonormal:
            return self._whole("basis")
        if any(part.requires_grad or part.is_inference() for part in parts):  # the latter count no versions
            return orthonormal_rows(self._whole("basis"))
        basis = [(part.device, part.data_ptr(), part._version) for part in parts]
        if (
            self._frame is None
            or self._frame[0] != basis
            or (self._frame[1].is_inference() and not torch.is_inference_mode_enabled())
        ):
            self._frame = (basis, orthonormal_rows(self._whole("basis")).detach())
        return self._frame[1]

    def forward(self, states: Tensor, rows: Tensor | None = None) -> Tensor:
        """Return edited states, (tokens, hidden), in the dtype of those given.

        Args:
            states: (tokens, hidden).
            rows: B, where it was made together with those of other edits.
        """
        formula = self.edit.formula
        with full_precision():
            rows = self.basis_rows() if rows is None else rows
            given = states.to(rows.dtype)
            bias = self._whole("bias")
            if formula.reads and formula.subtracts and self.edit.activation == "linear":
                value = given @ (self._whole("source") - rows).T + bias
            else:
                value = (
                    ACTIVATIONS[self.edit.activation](given @ self._whole("source").T + bias) if formula.reads else bias
                )
                value = value - given @ rows.T if formula.subtracts else value.expand(given.shape[0], -1)
            if self._active is not None:
                value = value * self._active.to(value)
            change = value @ rows
            if self.dropout and self.training:
                if self.drops_state:
                    return functional.dropout(given + change, self.dropout).to(states.dtype)
                change = functional.dropout(change, self.dropout)
            return (given + change).to(states.dtype)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "EditModule":
        super()._apply(moved_but_not_cast(fn), recurse)  # type: ignore[no-untyped-call]
        return self
