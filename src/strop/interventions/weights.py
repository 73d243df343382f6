"""Edits of weights on a model: in place where they are found, by a hook where they learn."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from strop.anatomy import Anatomy, WeightSite
from strop.errors import InterventionError, StropError
from strop.interventions.interfaces import Decompose, WeightIntervention
from strop.interventions.learned import LearnedTensors, LearnedWeight
from strop.interventions.shift import ShiftByPosition, bias_of, holder_of


class WeightEdits:
    """What edits of weights have changed of a model, until `restore` gives it back the very storage it had."""

    def __init__(self) -> None:
        self.new_biases: dict[str, nn.Module] = {}
        """The modules that have a bias only for now, by their names inside the model."""
        self.holders: dict[str, nn.Module] = {}
        """The modules whose weights are edited or learn, by their names inside the model."""
        self._originals: dict[nn.Parameter, Tensor] = {}
        self._shifts: dict[nn.Module, ShiftByPosition] = {}
        self._learned: dict[nn.Module, LearnedWeight] = {}
        self._learning: list[WeightSite] = []

    @property
    def positions(self) -> int | None:
        """How many tokens sequences must have, where a bias differs by position."""
        return next((shift.positions for shift in self._shifts.values()), None)

    def adds(self, parameter: nn.Parameter) -> bool:
        """Return whether a parameter is one of the new biases."""
        return any(module.bias is parameter for module in self.new_biases.values())

    def original_of(self, parameter: nn.Parameter) -> Tensor | None:
        """Return what a parameter held before, where it was given another storage."""
        original = self._originals.get(parameter)
        return None if original is None else original.to(parameter.device, parameter.dtype)  # where the model is now

    def guards(self, parameter: nn.Parameter) -> bool:
        """Return whether a parameter was given another storage, or what learns was made for the numbers it holds."""
        learned = (weight for holder in self._learned for weight in holder.parameters(recurse=False))
        return parameter in self._originals or any(weight is parameter for weight in learned)

    def build_on(self, earlier: "WeightEdits") -> bool:
        """Return whether a parameter was found as earlier edits had left it, or one of them has added it."""
        touched = {*earlier._originals, *(module.bias for module in earlier.new_biases.values())}
        learned = (weight for holder in self._learned for weight in holder.parameters(recurse=False))
        return any(parameter in touched for parameter in (*self._originals, *learned))

    def edit(
        self,
        model: PreTrainedModel,
        anatomy: Anatomy,
        entry: WeightIntervention,
        *,
        tensors: Mapping[str, Tensor],
        decompose: Decompose,
    ) -> None:
        """Edit a matrix in place, as the edits before left it.

        Raises:
            InterventionError: one before it learns, or a module can hold no bias.
            StropError: the method's, with the address and the shape before it.
        """
        site = entry.site
        if any(site.overlaps(other) for other in self._learning):
            raise InterventionError(
                f"{site}: an edit before it on the same matrix learns; put the one that is found first."
            )
        parameter = anatomy.parameter(model, site)
        matrix = anatomy.matrix_in(parameter.data, site)
        try:
            edited = entry.edit(matrix, decompose=decompose, tensors=tensors)
        except StropError as error:
            raise type(error)(f"{site} ({tuple(matrix.shape)}): {error}") from error
        if edited is not matrix:
            self._hold(model, anatomy, site, parameter)
            anatomy.write_matrix(self._writable(parameter), site, edited)
        shift = entry.output_shift(tensors)
        if shift is not None:
            self._shift_output(model, anatomy, site, shift)

    def learn(
        self,
        model: PreTrainedModel,
        anatomy: Anatomy,
        entry: WeightIntervention,
        *,
        tensors: Mapping[str, Tensor],
        decompose: Decompose,
    ) -> LearnedTensors:
        """Let a matrix be edited by parameters that learn, and return them; the model's own weight stays as it is.

        Raises:
            InterventionError: another edit that learns is of a part of the same matrix.
            AnatomyError: no module's output is that of the matrix.
        """
        site = entry.site
        weight = anatomy.parameter(model, site)
        anatomy.tapped_module(model, site)
        holder = self._hold(model, anatomy, site, weight)
        if holder not in self._learned:
            self._learned[holder] = LearnedWeight(holder, anatomy.spelling(site).parameter, anatomy)
        learned = LearnedTensors(entry, tensors).to(weight.device)
        self._learned[holder].add(learned, anatomy.matrix_in(weight.detach(), site), decompose)
        self._learning.append(site)
        return learned

    def restore(self) -> None:
        """Give the model back what it had."""
        for parameter in self._originals:
            original = self.original_of(parameter)
            if original is not None:
                parameter.data = original
        self._originals.clear()
        for module in self.new_biases.values():
            module.register_parameter("bias", None)
        self.new_biases.clear()
        for shift in self._shifts.values():
            shift.remove()
        for learned in self._learned.values():
            learned.remove()
        self._shifts.clear()
        self._learned.clear()
        self.holders.clear()

    def _hold(self, model: PreTrainedModel, anatomy: Anatomy, site: WeightSite, weight: nn.Parameter) -> nn.Module:
        """Note the module that holds a site's matrix, and return it."""
        name, holder = holder_of(weight, anatomy.module(model, site), name=anatomy.module_path(site))
        self.holders[name] = holder
        return holder

    def _writable(self, parameter: nn.Parameter) -> Tensor:
        if parameter not in self._originals:
            self._originals[parameter] = parameter.data
            parameter.data = parameter.data.clone()
        return parameter.data

    def _shift_output(self, model: PreTrainedModel, anatomy: Anatomy, site: WeightSite, shift: Tensor) -> None:
        weight = anatomy.parameter(model, site)
        holder = self._hold(model, anatomy, site, weight)
        name = next(name for name, own in self.holders.items() if own is holder)
        count, features = anatomy.output_features(weight, site)
        if shift.ndim == 2:
            if holder not in self._shifts:
                self._shifts[holder] = ShiftByPosition(name, holder, weight.new_zeros(shift.shape[0], count))
            self._shifts[holder].add(shift.to(weight.device), features)
            return
        bias = bias_of(holder, count, where=f"{site}: {name}")
        if bias is None:
            bias = nn.Parameter(weight.new_zeros(count), requires_grad=False)
            self.new_biases[name] = holder
            holder.register_parameter("bias", bias)
        self._writable(bias)[features] += shift.to(weight.device)


def shape_of(model: PreTrainedModel, anatomy: Anatomy, site: WeightSite) -> tuple[int, int]:
    """Return a matrix's shape, (out, in)."""
    with torch.no_grad():
        found = anatomy.matrix_in(anatomy.parameter(model, site).detach(), site).shape
    return found[0], found[1]


def stand_for_weights_first(module: nn.Module) -> None:
    """Let hooks that stand for an edited weight run before those that edit or look at what the module makes of it."""
    for number, hook in reversed(list(module._forward_hooks.items())):
        if isinstance(getattr(hook, "__self__", None), (ShiftByPosition, LearnedWeight)):
            module._forward_hooks.move_to_end(number, last=False)  # type: ignore[attr-defined]
