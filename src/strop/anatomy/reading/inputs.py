"""Short inputs to look at a model with: the same on every call, and without touching anyone's random numbers."""

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from strop.anatomy.calling import input_device, input_embeddings
from strop.anatomy.sizes import config_of
from strop.anatomy.storage import device_of
from strop.errors import AnatomyError

TOKENS = 4
Inputs = Mapping[str, Tensor]


def short_inputs(model: PreTrainedModel) -> dict[str, Tensor]:
    """Return a batch of two short inputs that a model can be called with: ordinary token ids, or images.

    Returns:
        What the model's body takes, by name: (2, 4) token ids, or (2, channels, height, width).

    Raises:
        AnatomyError: the model takes neither; hand it inputs of your own.
    """
    taken = inspect.signature(model.base_model.forward).parameters
    generator = torch.Generator().manual_seed(0)
    if "input_ids" in taken and input_embeddings(model) is not None:
        ids = ordinary_ids(model, (2, TOKENS), generator)
        return (
            {"input_ids": ids, "decoder_input_ids": ids.flip(0)} if "decoder_input_ids" in taken else {"input_ids": ids}
        )
    config = config_of(model, None)
    size = getattr(config, "image_size", None)
    if "pixel_values" in taken and size is not None:
        height, width = (size, size) if isinstance(size, int) else size
        channels = getattr(config, "num_channels", 3)
        images = torch.randn((2, channels, height, width), generator=generator)
        return {"pixel_values": images.to(next(model.parameters()))}
    raise AnatomyError(
        f"{type(model).__name__} reads neither token ids nor images, so no input could be made to look at it."
    )


def ordinary_ids(model: PreTrainedModel, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Return random token ids that mean nothing special to a model: no padding, no end, no place of an image."""
    count = model.get_input_embeddings().num_embeddings
    settings = {**model.config.to_dict(), **model.config.get_text_config().to_dict()}
    special = {
        token
        for name, value in settings.items()
        if name.endswith(("token_id", "token_index"))
        for token in (value if isinstance(value, list) else [value])
    }
    ordinary = torch.tensor([token for token in range(min(count, 1024)) if token not in special] or [0])
    return ordinary[torch.randint(len(ordinary), shape, generator=generator)].to(input_device(model))


def copies(inputs: Inputs, count: int) -> dict[str, Tensor]:
    """Return the first of a batch of inputs as a batch of as many copies."""
    return {name: value[:1].expand(count, *value.shape[1:]) for name, value in inputs.items()}


def run(model: PreTrainedModel, inputs: Inputs) -> Any:
    """Call a model's body, without its head and without a cache."""
    with torch.compiler.set_stance("force_eager"):  # hooks see nothing of what is compiled
        return model.base_model(**inputs, **uncached(model.base_model))


def uncached(model: nn.Module) -> dict[str, bool]:
    """Return what a model is told so that it keeps no cache, where it can be told."""
    return {"use_cache": False} if "use_cache" in inspect.signature(model.forward).parameters else {}


def name_of(model: PreTrainedModel, module: nn.Module) -> str:
    """Return a module's dotted name inside the model."""
    return next((name for name, part in model.named_modules() if part is module), type(module).__name__)


def refuse_no_weights(model: PreTrainedModel) -> None:
    """Raise AnatomyError if some of a model's weights are nowhere to compute with; offloaded ones are fetched."""
    for name, module in model.named_modules():
        if any(weight.is_meta for weight in module.parameters(recurse=False)) and device_of(module) is None:
            raise AnatomyError(
                f"{name} is on the meta device, so no forward pass can check what was read of the model."
            )
