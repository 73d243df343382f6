"""Around the calls of a model: the mode it is in, the gradients it asks for, the device its inputs are on."""

import contextlib
from collections.abc import Iterator

import torch
from transformers import PreTrainedModel


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
    asking = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in asking:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in asking:
            parameter.requires_grad_(True)


def input_device(model: PreTrainedModel) -> torch.device:
    """Return the device a model's token ids must be on: of an offloaded one that on which it is run."""
    embeddings = model.get_input_embeddings()
    device: torch.device = embeddings.weight.device
    hook = getattr(embeddings, "_hf_hook", None)  # accelerate's
    if device.type != "meta" or hook is None:
        return device
    runs_on = [own.execution_device for own in getattr(hook, "hooks", [hook]) if own.execution_device is not None]
    return torch.device(runs_on[0]) if runs_on else device
