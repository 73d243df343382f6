"""Put interventions on a model and take them off again, bit for bit.

The model stays what it is: a parameter's storage is exchanged for an edited copy and, on the way back, the untouched
original takes its place again. A module without a bias gets one for as long as an edit leaves a mean output behind; an
output that differs by position, weights that learn, and hidden states, need hooks. No class is wrapped, no hook is left
behind.
"""

import contextlib
import weakref
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from strop.anatomy import Anatomy, device_of
from strop.interventions.attachment import Attachment
from strop.interventions.editor import editor_of
from strop.interventions.head import Head, HeadSwap
from strop.interventions.interfaces import Decompose, Intervention, StateIntervention
from strop.interventions.state_edit import StateEdit
from strop.interventions.weights import shape_of
from strop.linalg import DecompositionCache, full_precision


def attach_interventions(
    model: PreTrainedModel,
    interventions: Sequence[Intervention],
    *,
    anatomy: Anatomy | None = None,
    tensors: Sequence[Mapping[str, Tensor]] | None = None,
    decompose: Decompose | None = None,
    head: Head | None = None,
    trainable: bool = False,
    learning_from: int = 0,
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
        trainable: let the interventions that learn do so, and the head where one is given: their parameters become a part
            of the model, so that any optimiser finds them, and all else that is the model's own is frozen.
        learning_from: the first intervention whose weights learn; what those before it have learned is applied in place.
        outer: a wrapper the model is called through, such as PEFT's; its parameters stay as they are.

    Raises:
        SiteError: the model has no such matrix or layer.
        InterventionError: the recipe's tensors do not fit the model, a module can hold no bias, or nothing can learn.
        UneditableWeightError: a weight that is to be edited is tied or quantised.
        DecompositionError: a matrix holds NaN or infinity.
    """
    anatomy = anatomy or Anatomy.of(model)
    decompose = decompose or DecompositionCache().decompose
    carried = tensors if tensors is not None else [{}] * len(interventions)
    attachment = Attachment(model, interventions, carried)
    try:
        anatomy.refuse_tied(model, [entry.site for entry in interventions if entry.kind == "weight"])
        with torch.no_grad(), full_precision():
            for index, (entry, own_tensors) in enumerate(zip(interventions, carried, strict=True)):
                if entry.kind == "weight":
                    entry.check(own_tensors, shape_of(model, anatomy, entry.site))
                    if trainable and entry.learned_tensors and index >= learning_from:
                        attachment.modules[index] = attachment.weights.learn(
                            model, anatomy, entry, tensors=own_tensors, decompose=decompose
                        )
                    else:
                        attachment.weights.edit(model, anatomy, entry, tensors=own_tensors, decompose=decompose)
                else:
                    attachment.modules[index] = _state_module(model, anatomy, entry, own_tensors)
        _edit_states(model, anatomy, attachment, outer)
        if head is not None:
            attachment.head = HeadSwap(model, head)
        if trainable:
            attachment.learn(outer=outer is not None)
    except BaseException:
        attachment.restore()
        raise
    attachment.attach()
    return attachment


def _state_module(
    model: PreTrainedModel, anatomy: Anatomy, entry: StateIntervention, tensors: Mapping[str, Tensor]
) -> nn.Module:
    hidden_size = anatomy.stacks[entry.site.stack].hidden_size
    holder = anatomy.stream_module(model, entry.site)
    entry.check(tensors, (hidden_size, hidden_size))
    device = device_of(holder) or model.device
    module = entry.module(tensors, hidden_size).to(device).train(model.training)
    return module.requires_grad_(False)


def _edit_states(model: PreTrainedModel, anatomy: Anatomy, attachment: Attachment, outer: nn.Module | None) -> None:
    edits = tuple(
        StateEdit(entry, module)
        for entry, module in zip(attachment.interventions, attachment.modules, strict=True)
        if entry.kind == "state"
    )
    if not edits:
        return
    attachment.states = edits
    editor = editor_of(model, anatomy)
    if outer is not None:
        editor.watch(outer)
    editor.add(edits)
    attachment.editor = weakref.ref(editor)


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
        attachment.end()
