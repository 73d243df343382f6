"""Put interventions on a model and take them off again, bit for bit.

The model stays what it is: a parameter's storage is exchanged for an edited copy and, on the way back, the untouched
original takes its place again. A module without a bias gets one for as long as an edit leaves a mean output behind; an
output that differs by position, and hidden states, need hooks. No class is wrapped, no hook is left behind.
"""

import contextlib
import copy
import weakref
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from strop.anatomy import Anatomy, WeightSite
from strop.errors import InterventionError, StropError
from strop.interventions.base import Decompose, Intervention, WeightIntervention
from strop.interventions.compiled import forget_compiled_code
from strop.interventions.editor import StateEditor, editor_of
from strop.interventions.head import Head, HeadSwap
from strop.interventions.low_rank_edit import EditModule, LowRankEdit
from strop.interventions.shift import ShiftByPosition, bias_of, checked_shift, holder_of
from strop.linalg import DecompositionCache

_NAMES = ("strop_edits", *(f"strop_edits_{number}" for number in range(2, 100)))
_ATTACHED = "_strop_attachments"
"""The model's attribute that lists what is attached: a deep copy of the model has copies of its own."""


class Attachment:
    """Interventions that are on a model; `detach` takes them off."""

    def __init__(self, model: PreTrainedModel, interventions: Sequence[Intervention]) -> None:
        self.interventions = tuple(interventions)
        self.edits: tuple[EditModule, ...] = ()
        """Those of the interventions that edit hidden states, with their numbers."""
        self.new_biases: dict[str, nn.Module] = {}
        """The modules that have a bias only while this is attached, by their names inside the model."""
        self._model = weakref.ref(model)
        self._originals: dict[nn.Parameter, Tensor] = {}
        self._shifts: dict[nn.Module, ShiftByPosition] = {}
        self._editor: weakref.ref[StateEditor] | None = None
        self._head: HeadSwap | None = None
        self._registered: str | None = None
        self._asked_for_gradients: dict[nn.Parameter, bool] = {}

    @property
    def tensors(self) -> tuple[dict[str, Tensor], ...]:
        """For each intervention, what it has learned so far; empty for those that learn nothing."""
        learned = iter(self.edits)
        return tuple(next(learned).tensors if isinstance(entry, LowRankEdit) else {} for entry in self.interventions)

    @property
    def head_tensors(self) -> dict[str, Tensor] | None:
        """What the classification head is now; None where the recipe has none."""
        return self._head.tensors if self._head is not None else None

    def load(self, tensors: Sequence[Mapping[str, Tensor]], *, head: Head | None = None) -> None:
        """Let the edits of hidden states go on from other learned tensors, one set for each intervention.

        Args:
            tensors: by intervention.
            head: what the classification head goes on from, where there is one.

        Raises:
            InterventionError: they do not fit.
        """
        if head is not None and self._head is not None:
            self._head.load(head.tensors)
        learned = iter(self.edits)
        for entry, own_tensors in zip(self.interventions, tensors, strict=True):
            if isinstance(entry, LowRankEdit):
                next(learned).load(own_tensors)

    def use_subspaces(self, names: Collection[str] | None) -> None:
        """Edit inside some named subspaces, and only those; all by default.

        Raises:
            UsageError: an edit has no such subspace.
        """
        for edit in self.edits:
            edit.use_subspaces(names)

    @property
    def positions(self) -> int | None:
        """How many tokens sequences must have, where a bias differs by position."""
        return next((shift.positions for shift in self._shifts.values()), None)

    def detach(self) -> None:
        """Give the model back the very storage it had; calling it twice is the same as once.

        Raises:
            InterventionError: another attachment was made later and is still on.
        """
        model = self._model()
        if model is None or self not in (attached := attachments_of(model)):
            return
        if attached[-1] is not self:
            raise InterventionError("Another recipe was attached later; detach that one first.")
        if attached[:-1]:
            model.__dict__[_ATTACHED] = attached[:-1]
        else:
            del model.__dict__[_ATTACHED]
        self._restore()

    def __deepcopy__(self, memo: dict[int, Any]) -> "Attachment":
        """Copy it with its model, to be detached from the copy."""
        found = object.__new__(Attachment)
        memo[id(self)] = found
        for name, own in vars(self).items():
            target = own() if isinstance(own, weakref.ref) else None
            copied = copy.deepcopy(own if target is None else target, memo)
            setattr(found, name, copied if target is None else weakref.ref(copied))
        return found

    def __reduce__(self) -> tuple[Any, ...]:
        """Leave what is attached out of a pickled model: its edited weights are then its own."""
        return (_nothing, ())

    def _restore(self) -> None:
        editor = self._editor() if self._editor is not None else None
        if editor is not None:
            editor.remove(self.edits)
        self._editor = None
        model = self._model()
        if model is not None and self._registered is not None:
            delattr(model, self._registered)
            self._registered = None
        for parameter, asked in self._asked_for_gradients.items():
            parameter.requires_grad_(asked)
        self._asked_for_gradients.clear()
        if self._head is not None:
            self._head.restore()
            self._head = None
        for parameter, original in self._originals.items():
            parameter.data = original.to(parameter.device, parameter.dtype)  # where the model is now
        self._originals.clear()
        for module in self.new_biases.values():
            module.register_parameter("bias", None)
        self.new_biases.clear()
        for shift in self._shifts.values():
            shift.remove()
        self._shifts.clear()
        forget_compiled_code()

    def _writable(self, parameter: nn.Parameter) -> Tensor:
        if parameter not in self._originals:
            self._originals[parameter] = parameter.data
            parameter.data = parameter.data.clone()
        return parameter.data


def attach_interventions(
    model: PreTrainedModel,
    interventions: Sequence[Intervention],
    *,
    anatomy: Anatomy | None = None,
    tensors: Sequence[Mapping[str, Tensor]] | None = None,
    decompose: Decompose | None = None,
    head: Head | None = None,
    trainable: bool = False,
    outer: nn.Module | None = None,
) -> Attachment:
    """Apply interventions in order, in place, and return the handle that takes them off.

    Args:
        model: changed until the handle's `detach`.
        interventions: each sees the matrix as those before it left it.
        anatomy: the model's, where it is at hand.
        tensors: for each intervention, what its recipe carries for it.
        decompose: how to come by decompositions; the cache on disk by default.
        head: a classification head to put in the place of the model's own.
        trainable: let the edits of hidden states learn, and the head where one is given: the edits become a part of the
            model, so that any optimiser finds their parameters, and all else that is the model's own is frozen.
        outer: a wrapper the model is called through, such as PEFT's; its parameters stay as they are.

    Raises:
        SiteError: the model has no such matrix or layer.
        InterventionError: the recipe's tensors do not fit the model, or a module can hold no bias.
        UneditableWeightError: a weight is tied or quantised.
        DecompositionError: a matrix holds NaN or infinity.
    """
    anatomy = anatomy or Anatomy.of(model)
    decompose = decompose or DecompositionCache().decompose
    carried = tensors if tensors is not None else [{}] * len(interventions)
    attachment = Attachment(model, interventions)
    try:
        anatomy.refuse_tied(model, [entry.site for entry in interventions if not isinstance(entry, LowRankEdit)])
        with torch.no_grad():
            for entry, own_tensors in zip(interventions, carried, strict=True):
                if not isinstance(entry, LowRankEdit):
                    _edit(model, anatomy, entry, attachment, decompose, own_tensors)
        _edit_states(model, anatomy, attachment, carried, outer)
        if head is not None:
            attachment._head = HeadSwap(model, head)
        if trainable:
            _let_learn(model, attachment, outer)
    except BaseException:
        attachment._restore()
        raise
    model.__dict__[_ATTACHED] = (*attachments_of(model), attachment)
    forget_compiled_code()
    return attachment


def _edit_states(
    model: PreTrainedModel,
    anatomy: Anatomy,
    attachment: Attachment,
    tensors: Sequence[Mapping[str, Tensor]],
    outer: nn.Module | None,
) -> None:
    modules = []
    for entry, own_tensors in zip(attachment.interventions, tensors, strict=True):
        if isinstance(entry, LowRankEdit):
            device = next(anatomy.stream_module(model, entry.site).parameters()).device
            modules.append(EditModule(entry, own_tensors, anatomy.hidden_size).to(device).train(model.training))
    if not modules:
        return
    attachment.edits = tuple(modules)
    editor = editor_of(model, anatomy)
    if outer is not None:
        editor.watch(outer)
    editor.add(modules)
    attachment._editor = weakref.ref(editor)  # it holds the model, which an attachment must not keep alive


def _let_learn(model: PreTrainedModel, attachment: Attachment, outer: nn.Module | None) -> None:
    if not attachment.edits:
        raise InterventionError("Only edits of hidden states can learn, and there are none; add one.")
    if outer is None:
        attachment._asked_for_gradients = {parameter: parameter.requires_grad for parameter in model.parameters()}
        for parameter in attachment._asked_for_gradients:
            parameter.requires_grad_(False)
    for parameter in attachment._head.parameters if attachment._head is not None else ():
        attachment._asked_for_gradients.setdefault(parameter, parameter.requires_grad)
        parameter.requires_grad_(True)
    for edit in attachment.edits:
        edit.train_subspaces(None)
    attachment._registered = next(name for name in _NAMES if not hasattr(model, name))
    model.add_module(attachment._registered, nn.ModuleList(attachment.edits))


def _edit(
    model: PreTrainedModel,
    anatomy: Anatomy,
    intervention: WeightIntervention,
    attachment: Attachment,
    decompose: Decompose,
    tensors: Mapping[str, Tensor],
) -> None:
    site = intervention.site
    parameter = anatomy.parameter(model, site)
    matrix = anatomy.matrix_in(parameter.data, site)
    shift = checked_shift(intervention, tensors, outputs=matrix.shape[0])
    try:
        edited = intervention.edit(matrix, decompose=decompose, tensors=tensors)
    except StropError as error:
        raise type(error)(f"{site} ({tuple(matrix.shape)}): {error}") from error
    anatomy.write_matrix(attachment._writable(parameter), site, edited)
    if shift is not None:
        _shift_output(model, anatomy, site, attachment, shift)


def _shift_output(
    model: PreTrainedModel, anatomy: Anatomy, site: WeightSite, attachment: Attachment, shift: Tensor
) -> None:
    weight = anatomy.parameter(model, site)
    name, holder = holder_of(weight, anatomy.module(model, site), name=anatomy.module_path(site))
    count, features = anatomy.output_features(weight, site)
    if shift.ndim == 2:
        if holder not in attachment._shifts:
            attachment._shifts[holder] = ShiftByPosition(name, holder, weight.new_zeros(shift.shape[0], count))
        attachment._shifts[holder].add(shift.to(weight.device), features)
        return
    bias = bias_of(holder, count, where=f"{site}: {name}")
    if bias is None:
        bias = nn.Parameter(weight.new_zeros(count), requires_grad=False)
        attachment.new_biases[name] = holder
        holder.register_parameter("bias", bias)
    attachment._writable(bias)[features] += shift.to(weight.device)


@contextlib.contextmanager
def applied_interventions(
    model: PreTrainedModel,
    interventions: Sequence[Intervention],
    *,
    anatomy: Anatomy | None = None,
    tensors: Sequence[Mapping[str, Tensor]] | None = None,
    decompose: Decompose | None = None,
    head: Head | None = None,
) -> Iterator[PreTrainedModel]:
    """Apply interventions for the length of a `with` block; see `attach_interventions`."""
    attachment = attach_interventions(
        model, interventions, anatomy=anatomy, tensors=tensors, decompose=decompose, head=head
    )
    try:
        yield model
    finally:
        attachment.detach()


def attachments_of(model: PreTrainedModel) -> tuple[Attachment, ...]:
    """Return what is attached to a model, in the order it was attached."""
    listed = model.__dict__.get(_ATTACHED, ())
    return tuple(attachment for attachment in listed if attachment is not None)


def _nothing() -> None:
    """Stand for an attachment in a pickled model."""
