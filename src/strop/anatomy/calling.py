"""Around the calls of a model: the mode it is in, the gradients it asks for, the device its inputs are on."""

import contextlib
from collections.abc import Iterator

import torch
from torch import nn
from transformers import PreTrainedModel

from strop.anatomy.asked import AskedForGradients
from strop.anatomy.storage import device_of


@contextlib.contextmanager
def evaluating(model: PreTrainedModel) -> Iterator[None]:
    """Put a model into evaluation mode (no dropout) and back into the mode it was in, module by module."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


@contextlib.contextmanager
def frozen(model: PreTrainedModel) -> Iterator[None]:
    """Let no parameter of a model ask for a gradient, and restore what each asked for before."""
    asked = AskedForGradients()
    asked.note(model)
    asked.ask_for_none()
    try:
        yield
    finally:
        asked.restore()


def input_embeddings(model: PreTrainedModel) -> nn.Module | None:
    """Return what makes hidden states of a model's input; None where the model does not say."""
    try:
        found: nn.Module | None = model.get_input_embeddings()
    except NotImplementedError:  # of some that look at images
        return None
    return found


def input_device(model: PreTrainedModel) -> torch.device:
    """Return the device a model's token ids, or pixels, must be on: of an offloaded one that on which it is run."""
    embeddings = input_embeddings(model)
    device: torch.device = (device_of(embeddings) if embeddings is not None else None) or model.device
    return device
