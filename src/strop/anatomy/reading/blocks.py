"""Where a model keeps its blocks: the lists of like modules that hidden states pass through one after another."""

import dataclasses
import re
from collections.abc import Iterator

from torch import nn
from transformers import PreTrainedModel

from strop.anatomy.sites import Stack

_VISION = re.compile(r"vision|visual|image|vit\b", re.IGNORECASE)
_OTHER_INPUTS = re.compile(r"audio|speech|perceiver|resampler|q_?former|connector|mtp|draft", re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class BlockLists:
    """The paths of a model's lists of blocks, from the model with its head on."""

    main: str
    stacks: dict[Stack | None, str]
    """Each list where there are several, as `Family.stacks` has them; empty where there is one."""


@dataclasses.dataclass(frozen=True, eq=False)
class Held:
    """A parameter that holds one weight matrix or several."""

    path: str
    """Of the module that holds it, from the block on."""
    module: nn.Module
    name: str
    """The parameter's."""
    shape: tuple[int, ...]
    """(out, in), as a linear module says it even where its numbers are packed; or the parameter's own."""


def matrices_in(module: nn.Module) -> Iterator[Held]:
    """Return the parameters inside a module that hold weight matrices.

    They are the `weight` of two axes of a linear module, whatever it keeps it as, and parameters of three axes: the matrices of
    several experts. What an embedding or a convolution holds is none. A module that an adapter has wrapped stands where the
    wrapper is, and what torch.compile made of a module stands for that.
    """
    for path, part in module.named_modules():
        if isinstance(part, nn.Embedding | nn.Conv1d | nn.Conv2d | nn.Conv3d) or ".lora_" in path:
            continue
        where = path.removesuffix(".base_layer").replace("_orig_mod.", "")
        sizes = (getattr(part, "out_features", None), getattr(part, "in_features", None))
        linear = hasattr(part, "weight") and all(isinstance(size, int) for size in sizes)
        if linear:
            if not isinstance(getattr(part, "base_layer", None), nn.Module):
                yield Held(where, part, "weight", tuple(int(size or 0) for size in sizes))
            continue
        for name, parameter in part.named_parameters(recurse=False):
            if (parameter.ndim == 2 and name == "weight") or parameter.ndim == 3:
                yield Held(where, part, name, tuple(parameter.shape))


def block_lists(model: PreTrainedModel) -> BlockLists | None:
    """Return where a model keeps its blocks, or None where it has no list of modules with several matrices each.

    An outer list is taken and none inside its blocks. Of an encoder–decoder's lists the encoder's is the main one, which reads the
    prompt; of a model for images and text that of the text, whose length is the number of layers its config names.
    """
    found = [
        (path, part)
        for path, part in model.named_modules()
        if isinstance(part, nn.ModuleList) and len(part) and all(_is_block(each) for each in part)
    ]
    outer = [(path, part) for path, part in found if not any(path.startswith(f"{other}.") for other, _ in found)]
    lists = [(path, part) for path, part in outer if not _OTHER_INPUTS.search(path)]
    if not lists:
        return None
    vision = [path for path, _ in lists if _VISION.search(path)]
    texts = [(path, part) for path, part in lists if path not in vision]
    if model.config.is_encoder_decoder:
        sides = {stack: _on_side(texts, stack) for stack in (Stack.ENCODER, Stack.DECODER)}
        if all(sides.values()):
            return BlockLists(str(sides[Stack.ENCODER]), {stack: str(path) for stack, path in sides.items()})
    if not texts:
        return BlockLists(vision[0], {})
    main = _main(model, texts)
    return BlockLists(main, {Stack.VISION: vision[0]} if vision else {})


def _is_block(module: nn.Module) -> bool:
    return len({held.path for held in matrices_in(module)} - {""}) > 1


def _on_side(lists: list[tuple[str, nn.ModuleList]], stack: Stack) -> str | None:
    return next((path for path, _ in lists if re.search(rf"(^|\.){stack}s?(\.|$)", path)), None)


def _main(model: PreTrainedModel, lists: list[tuple[str, nn.ModuleList]]) -> str:
    layers = getattr(model.config.get_text_config(), "num_hidden_layers", None)
    as_said = [each for each in lists if len(each[1]) == layers] or lists
    path, _ = max(as_said, key=lambda each: sum(parameter.numel() for parameter in each[1].parameters()))
    return path
