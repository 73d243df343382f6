"""Edits of weights while they learn: live parameters beside a model whose own weights stay as they are."""

from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from strop.anatomy import Anatomy, WeightSite
from strop.errors import InterventionError
from strop.interventions.compiled import never_compiled
from strop.interventions.copies import copy_with_model, refuse_pickling
from strop.interventions.interfaces import Bounded, ChangesOutputs, Decompose, MakesOutputs, WeightIntervention
from strop.linalg import full_precision

_WIDE = (torch.float32, torch.float64)


class LearnedTensors(nn.Module):
    """What a learned edit of a weight is made of: matrix (out, in) → edited matrix, differentiable in its parameters.

    The parameters are in float32, and stay in it whatever the model is cast to.

    Args:
        entry: the decision, whose `check` the tensors have passed.
        tensors: all it carries.
    """

    def __init__(self, entry: WeightIntervention, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.entry = entry
        self.learned = nn.ParameterDict(
            {name: nn.Parameter(_own(tensors[name]), requires_grad=False) for name in entry.learned_tensors}
        )
        self._carried = {name: tensor for name, tensor in tensors.items() if name not in entry.learned_tensors}
        self._precomputed: dict[str, Tensor] = {}
        self._decompose: Decompose | None = None
        self._on_given_matrix = False

    def prepare(self, matrix: Tensor | None, decompose: Decompose) -> None:
        """Compute once what `edit` needs of a matrix that stays as it is; None where edits before this one learn as well."""
        self._decompose = decompose
        self._on_given_matrix = matrix is not None
        if matrix is not None:
            self._precomputed = self.entry.precomputed(matrix, decompose=decompose)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """What it has learned, detached, and within the method's bounds whoever trained it."""
        found = {name: parameter.detach().clone() for name, parameter in self.learned.items()}
        return self.entry.held_in_bounds(found) if isinstance(self.entry, Bounded) else found

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over learned tensors, in place.

        Raises:
            InterventionError: they do not fit.
        """
        for name, parameter in self.learned.items():
            found = tensors.get(name)
            if found is None or found.shape != parameter.shape or not bool(torch.isfinite(found).all()):
                raise InterventionError(
                    f"{self.entry.site}: its {name} is to be of shape {tuple(parameter.shape)} and made of finite numbers; "
                    "train anew."
                )
        with torch.no_grad():
            for name, parameter in self.learned.items():
                parameter.copy_(tensors[name])

    def on(self, device: torch.device) -> dict[str, Tensor]:
        """Return all its tensors on a device, from where gradients come back to its parameters."""
        everything = {**self._precomputed, **self._carried, **self.learned}
        return {name: tensor.to(device) for name, tensor in everything.items()}

    def hold_in_bounds(self) -> None:
        """Move parameters that a step took out of their bounds back to them, where the method has any."""
        if isinstance(self.entry, Bounded):
            with torch.no_grad():
                for name, tensor in self.entry.held_in_bounds(dict(self.learned)).items():
                    self.learned[name].copy_(tensor)

    def output_change(self, inputs: Tensor) -> Tensor | None:
        """Return what the edit changes of the matrix's outputs, (..., out), where its method can say so from factors.

        For a few tokens that is far less work than forming the edited matrix, as long as no edit before it learns.
        """
        if not isinstance(self.entry, ChangesOutputs) or not self._on_given_matrix:
            return None
        return self.entry.output_change(inputs, self.on(inputs.device))

    def output(self, inputs: Tensor) -> Tensor | None:
        """Return what the edited matrix makes of inputs, (..., out), where its method can say so from factors alone."""
        if not isinstance(self.entry, MakesOutputs) or not self._on_given_matrix:
            return None
        return self.entry.output(inputs, self.on(inputs.device))

    def forward(self, matrix: Tensor) -> Tensor:
        """Return the edited matrix, (out, in)."""
        if self._decompose is None:
            raise InterventionError(f"{self.entry.site}: the edit was not prepared; attach it to a model.")
        return self.entry.edit(matrix, decompose=self._decompose, tensors=self.on(matrix.device))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "LearnedTensors":
        super()._apply(moved_but_not_cast(fn), recurse)  # type: ignore[no-untyped-call]
        return self


class LearnedWeight:
    """What a module makes while edits of its weight learn: x edit(W)ᵀ in the place of x Wᵀ.

    Where factors say all of it, the module's own product is left out; else a hook adds x (edit(W) − W)ᵀ to it.

    Args:
        module: holds the weight.
        parameter: the weight's name in the module.
        anatomy: of the model.
    """

    def __init__(self, module: nn.Module, parameter: str, anatomy: Anatomy) -> None:
        self._module, self._name, self._anatomy = module, parameter, anatomy
        self._edits: dict[WeightSite, tuple[LearnedTensors, ...]] = {}
        self._features: dict[WeightSite, Tensor] = {}
        self._order: Tensor | None = None
        self._handle = module.register_forward_hook(self._added, prepend=True)
        self._stands_in = False

    def add(self, learned: LearnedTensors, matrix: Tensor, decompose: Decompose) -> None:
        """Put an edit on, after those that are on already.

        Args:
            learned: the edit.
            matrix: (out, in), as the model holds it.
            decompose: how to come by decompositions.

        Raises:
            InterventionError: another one edits a part of the same matrix.
        """
        site = learned.entry.site
        for other in self._edits:
            if other != site and other.overlaps(site):
                raise InterventionError(
                    f"{site}: {other} learns too, and is a part of the same matrix or holds it; let one of them learn."
                )
        before = self._edits.get(site, ())
        learned.prepare(None if before else _wide(matrix), decompose)
        self._edits[site] = (*before, learned)
        count, self._features[site] = self._anatomy.output_features(getattr(self._module, self._name).detach(), site)
        self._stand_in(count)

    def _stand_in(self, count: int) -> None:
        """Take the place of the module's own product where edits of whole matrices make all its outputs; else leave it."""
        self._give_back()
        made = torch.cat([*self._features.values()])
        whole = type(self._module) in (nn.Linear, Conv1D) and "forward" not in vars(self._module)
        if whole and len(made) == count and all(site.head is None for site in self._edits):
            in_order = bool((made[1:] > made[:-1]).all())
            self._order = None if in_order else made.argsort()
            self._module.forward = self._made
            self._stands_in = True

    def _give_back(self) -> None:
        if self._stands_in:
            del self._module.forward
            self._stands_in = False

    def remove(self) -> None:
        """Take the hook off, and let the module make its outputs itself."""
        self._give_back()
        self._handle.remove()

    def __deepcopy__(self, memo: dict[int, Any]) -> "LearnedWeight":
        return copy_with_model(self, memo)

    def __reduce__(self) -> NoReturn:
        refuse_pickling()

    @never_compiled
    def _made(self, inputs: Tensor) -> Tensor:
        """Return what the module makes, edited, (..., out): from factors alone, or beside the module's own product."""
        weight: Tensor = getattr(self._module, self._name)
        parts = []
        narrow = weight.dtype not in _WIDE or torch.is_autocast_enabled(inputs.device.type)
        with full_precision():
            for learned, *later in self._edits.values() if not narrow else ():
                made = learned.output(inputs) if not later else None
                if made is None:
                    break
                shift = learned.entry.output_shift(learned.on(made.device))
                parts.append(made if shift is None else made + shift)
        if len(parts) < len(self._edits):
            own: Tensor = type(self._module).forward(self._module, inputs)
            return self._changed(inputs, own)
        output = parts[0] if len(parts) == 1 else torch.cat(parts, -1)
        if self._order is not None:
            output = output.index_select(-1, self._order.to(output.device))
        bias: Tensor | None = getattr(self._module, "bias", None)
        return output if bias is None else output + bias

    def _added(self, module: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> Tensor:
        return output if self._stands_in else self._changed(arguments[0], output)

    @never_compiled
    def _changed(self, inputs: Tensor, output: Tensor) -> Tensor:
        """Return a module's output, (..., features), with what the edits change of it."""
        weight = getattr(self._module, self._name).detach()
        wide = torch.float64 if weight.dtype == torch.float64 else torch.float32
        for site, edits in self._edits.items():
            with full_precision():
                read = self._anatomy.inputs_in(inputs, site).to(wide)
                change = edits[0].output_change(read) if len(edits) == 1 else None
                if change is None:
                    change = _change_by(edits, self._anatomy.matrix_in(weight, site), read)
                for learned in edits:
                    shift = learned.entry.output_shift(learned.on(change.device))
                    change = change if shift is None else change + shift
            features, change = self._features[site].to(output.device), change.to(output.dtype)
            output = output + change if len(features) == output.shape[-1] else output.index_add(-1, features, change)
        return output


def moved_but_not_cast(fn: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Return what follows a model to another device, but not to another precision, for a module's `_apply`."""

    def moved(tensor: Tensor) -> Tensor:
        return tensor.to(fn(tensor.new_empty(0)).device)

    return moved


def _change_by(edits: tuple[LearnedTensors, ...], matrix: Tensor, inputs: Tensor) -> Tensor:
    """Return what edits, one after the other, change of a matrix's outputs, (..., out), by forming the edited matrix."""
    given = edited = _wide(matrix)
    for learned in edits:
        edited = learned(edited)
    return inputs @ (edited - given).T


def _own(tensor: Tensor) -> Tensor:
    kept = tensor.detach()
    return (kept if kept.dtype == torch.float64 else kept.float()).clone(memory_format=torch.contiguous_format)


def _wide(matrix: Tensor) -> Tensor:
    return matrix if matrix.dtype in _WIDE else matrix.float()
