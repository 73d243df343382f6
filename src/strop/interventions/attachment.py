"""The handle of interventions that are on a model: it takes them off again, bit for bit."""

import copy
import warnings
import weakref
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from strop.anatomy import AskedForGradients
from strop.checkpoints import ATTACHED
from strop.errors import InterventionError, StropWarning, UsageError
from strop.interventions.base_kept import LOST, REMEDY, BaseKept
from strop.interventions.compiled import forget_compiled_code
from strop.interventions.editor import StateEditor
from strop.interventions.head import Head, HeadSwap
from strop.interventions.interfaces import Intervention
from strop.interventions.state_edit import StateEdit
from strop.interventions.weights import WeightEdits

_NAMES = ("strop_edits", *(f"strop_edits_{number}" for number in range(2, 100)))
_NO_GRADIENT = ("torch.ao.nn.quantized", "torch.ao.nn.intrinsic.quantized")


class Attachment:
    """Interventions that are on a model; `detach` takes them off.

    Args:
        model: which they are put on.
        interventions: in order.
        tensors: for each, what its recipe carries.
    """

    def __init__(
        self, model: PreTrainedModel, interventions: Sequence[Intervention], tensors: Sequence[Mapping[str, Tensor]]
    ) -> None:
        self.interventions = tuple(interventions)
        self.modules: list[Any] = [None] * len(self.interventions)
        """For each intervention, the nn.Module with its numbers, where it has one: it learns, or edits hidden states."""
        self.weights = WeightEdits()
        """What has become of the model's weights."""
        self.states: tuple[StateEdit, ...] = ()
        """The edits of hidden states, in order."""
        self.editor: weakref.ref[StateEditor] | None = None
        """What runs them; it holds the model, which an attachment must not keep alive."""
        self.head: HeadSwap | None = None
        """The classification head that was put on."""
        self._carried = tuple(tensors)
        self._base: BaseKept | None = None
        self._is_over = False
        self._model = weakref.ref(model)
        self._registered: str | None = None
        self._asked_for_gradients = AskedForGradients()

    @property
    def edits(self) -> tuple[Any, ...]:
        """The modules of those that edit hidden states, in order."""
        return tuple(edit.module for edit in self.states)

    @property
    def new_biases(self) -> dict[str, nn.Module]:
        """The modules that have a bias only while this is attached, by their names inside the model."""
        return self.weights.new_biases

    @property
    def positions(self) -> int | None:
        """How many tokens sequences must have, where a bias differs by position."""
        return self.weights.positions

    @property
    def tensors(self) -> tuple[dict[str, Tensor], ...]:
        """For each intervention, what it has learned so far; empty for those that learn nothing."""
        found = []
        for entry, module, carried in zip(self.interventions, self.modules, self._carried, strict=True):
            known: Mapping[str, Tensor] = carried if module is None else module.tensors
            found.append({name: known[name].detach().clone() for name in entry.learned_tensors})
        return tuple(found)

    @property
    def head_tensors(self) -> dict[str, Tensor] | None:
        """What the classification head is now; None where the recipe has none."""
        return self.head.tensors if self.head is not None else None

    def load(self, tensors: Sequence[Mapping[str, Tensor]], *, head: Head | None = None) -> None:
        """Let what learns go on from other learned tensors, one set for each intervention.

        Args:
            tensors: by intervention.
            head: what the classification head goes on from, where there is one.

        Raises:
            InterventionError: they do not fit, or belong to an edit of a weight that was not attached to learn.
        """
        if head is not None and self.head is not None:
            self.head.load(head.tensors)
        for entry, module, carried, own_tensors in zip(
            self.interventions, self.modules, self._carried, tensors, strict=True
        ):
            if entry.learned_tensors and module is None:
                if all(torch.equal(carried[name].cpu(), own_tensors[name].cpu()) for name in entry.learned_tensors):
                    continue
                raise InterventionError(
                    f"{entry.site}: the weight was edited in place, and takes no other numbers; attach with trainable=True."
                )
            if entry.learned_tensors:
                module.load({name: own for name, own in own_tensors.items() if name in entry.learned_tensors})

    def use_subspaces(self, names: Collection[str] | None) -> None:
        """Edit inside some named subspaces, and only those; all by default.

        Raises:
            UsageError: an edit has no such subspace.
        """
        for edit in self.states:
            use: Callable[[Collection[str] | None], None] | None = getattr(edit.module, "use_subspaces", None)
            if use is not None:
                use(names)
            elif names is not None:
                raise UsageError(f"{edit.entry.site}: {edit.entry.method} has no subspaces.")

    def learn(self, *, outer: bool) -> None:
        """Let what can learn do so, as a part of the model, and freeze all else that is the model's own.

        Args:
            outer: the model is called through a wrapper with parameters that learn; these stay as they are.

        Raises:
            InterventionError: nothing can learn.
        """
        model = self._model()
        learning = [
            module
            for entry, module in zip(self.interventions, self.modules, strict=True)
            if entry.learned_tensors and module is not None
        ]
        if model is None or not learning:
            raise InterventionError(
                "None of these interventions learns anything; add one that does, such as an edit of hidden states."
            )
        _refuse_without_gradients(model)
        if not outer:
            self._asked_for_gradients.note(model)
            self._asked_for_gradients.ask_for_none()
        of_head = self.head.parameters if self.head is not None else ()
        self._asked_for_gradients.note(model, of_head)
        for parameter in of_head:
            parameter.requires_grad_(True)
        for module in learning:
            module.requires_grad_(True)
        self._registered = next(name for name in _NAMES if not hasattr(model, name))
        model.add_module(self._registered, nn.ModuleList(learning))

    def adds(self, parameter: nn.Parameter) -> bool:
        """Return whether a parameter is on the model only while this is attached."""
        registered = (module for module in self.modules if module is not None) if self._registered is not None else ()
        return self.weights.adds(parameter) or any(
            own is parameter for module in registered for own in module.parameters()
        )

    def original_of(self, parameter: nn.Parameter) -> Tensor | None:
        """Return the tensor a parameter held before, where this gave it another."""
        of_head = self.head.original_of(parameter) if self.head is not None else None
        return of_head if of_head is not None else self.weights.original_of(parameter)

    def guards(self, parameter: nn.Parameter) -> bool:
        """Return whether this is for a parameter as it is, and other numbers in it would be lost or misread."""
        return self.weights.guards(parameter) or self._of_swapped_head(parameter) is not None

    def brings(self, parameter: nn.Parameter) -> bool:
        """Return whether a parameter is a bias that a module has only while this is attached."""
        return self.weights.adds(parameter)

    def base_of(self, parameter: nn.Parameter) -> Tensor | None:
        """Return what a parameter of the base holds where this edits it; None for one that learns, or is as it was."""
        swapped = self._of_swapped_head(parameter)
        return swapped if swapped is not None else self.weights.original_of(parameter)

    @property
    def changed(self) -> str | None:
        """The name of a weight that is not as this left it, for it was trained or merged into; None where all are."""
        model = self._model()
        if model is None or self._base is None:
            return None
        attached = attachments_of(model)
        later = attached[attached.index(self) + 1 :] if self in attached else ()
        return self._base.changed(but=lambda parameter: any(other.base_of(parameter) is not None for other in later))

    def _of_swapped_head(self, parameter: nn.Parameter) -> Tensor | None:
        if self.head is None or self._registered is not None:
            return None
        return self.head.original_of(parameter)

    def attach(self) -> None:
        """List this among what is attached to the model."""
        model = self._model()
        if model is None:
            return
        model.__dict__[ATTACHED] = (*attachments_of(model), self)
        if self.weights.holders or self.head is not None:
            self._base = BaseKept(model, self, self.weights.holders)
        forget_compiled_code()

    def detach(self) -> None:
        """Give the model back the very storage it had; calling it twice is the same as once.

        Warns:
            StropWarning: a weight was changed after it was edited, and that is lost, or another took its place.

        Raises:
            InterventionError: another attachment that edits the same weights was made later and is still on.
        """
        model = self._model()
        if model is None or self not in (attached := attachments_of(model)):
            return
        place = attached.index(self)
        if any(self._lies_below(later) for later in attached[place + 1 :]):
            raise InterventionError(
                "Another recipe that edits the same weights was attached later; detach that one first."
            )
        changed = self.changed
        if changed is not None:
            warnings.warn(f"{changed} {LOST} that is lost with the recipe's end; {REMEDY}.", StropWarning, stacklevel=2)
        replaced = self._base.replaced(model) if self._base is not None else None
        if replaced is not None:
            warnings.warn(
                f"{replaced} was replaced by another parameter after a recipe had edited it, so that the edit was off there; "
                "detach a recipe before weights are replaced, and attach it again.",
                StropWarning,
                stacklevel=2,
            )
        others = (*attached[:place], *attached[place + 1 :])
        if others:
            model.__dict__[ATTACHED] = others
        else:
            del model.__dict__[ATTACHED]
        self.restore()
        for waiting in reversed(attached[:place]):
            if waiting._is_over:
                waiting.end()

    def end(self) -> None:
        """Detach, or where another attachment lies on top of this, have it come off together with that one.

        Raises:
            InterventionError: another attachment that edits the same weights was made later and is still on.
        """
        self._is_over = True
        try:
            self.detach()
        except InterventionError as error:
            raise InterventionError(f"{str(error).removesuffix('.')}: this one stays on until then.") from None

    def _lies_below(self, later: "Attachment") -> bool:
        """Return whether an attachment that was made later is for the model as this one left it."""
        both_ask = self._asked_for_gradients and later._asked_for_gradients
        heads = self.head is not None and later.head is not None
        return bool(both_ask) or heads or later.weights.build_on(self.weights)

    def restore(self) -> None:
        """Undo all that was done to the model, of an attachment that is whole or half made."""
        editor = self.editor() if self.editor is not None else None
        if editor is not None:
            editor.remove(self.states)
        self.editor = None
        model = self._model()
        if model is not None and self._registered is not None:
            delattr(model, self._registered)
            self._registered = None
        self._asked_for_gradients.restore()
        if self._base is not None:
            self._base.remove()
            self._base = None
        if self.head is not None:
            self.head.restore()
            self.head = None
        self.weights.restore()
        forget_compiled_code()

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


def attachments_of(model: PreTrainedModel) -> tuple[Attachment, ...]:
    """Return what is attached to a model, in the order it was attached."""
    listed: tuple[Attachment | None, ...] = model.__dict__.get(ATTACHED, ())
    return tuple(attachment for attachment in listed if attachment is not None)


def _refuse_without_gradients(model: nn.Module) -> None:
    """Raise InterventionError if a model has modules of torch.ao, which compute without a gradient."""
    found = next((name for name, one in model.named_modules() if type(one).__module__.startswith(_NO_GRADIENT)), None)
    if found is not None:
        raise InterventionError(
            f"{found} is quantised by torch.ao, which lets no gradient through, so nothing would be learned; train on the base "
            "before it is quantised, or quantise it by torchao or bitsandbytes."
        )


def _nothing() -> None:
    """Stand for an attachment in a pickled model."""
