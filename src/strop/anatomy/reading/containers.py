"""What part of a block a matrix belongs to: attention, the MLP, a mixture's experts, or what mixes tokens in attention's place."""

import enum
import re
from collections.abc import Iterator

from torch import nn


class Part(enum.Enum):
    """A part of a block that has matrices."""

    ATTENTION = enum.auto()
    CROSS_ATTENTION = enum.auto()
    """From a decoder's tokens to an encoder's."""
    MLP = enum.auto()
    EXPERTS = enum.auto()
    SHARED_EXPERT = enum.auto()
    """The expert that every token reaches."""
    MIXER = enum.auto()
    """A state space, a short convolution or a linear recurrence."""


_BY_CLASS = (
    (re.compile(r"Attention|Attn|SelfOutput$|MoA$"), Part.ATTENTION),
    (re.compile(r"Experts$"), Part.EXPERTS),
    (
        re.compile(r"(MLP|Mlp|FeedForward|FFN|MoE|MoeBlock|DenseActDense|DenseGatedActDense|Intermediate|Output)$"),
        Part.MLP,
    ),
    (re.compile(r"Mixer$|Mamba2?$|ShortConv$|DeltaNet$|RecurrentBlock$|SSM$|LRU$"), Part.MIXER),
)
_BY_NAME = (
    (re.compile(r"^(self_?attn|attn|(self_?)?attention|.*head_attention)$", re.IGNORECASE), Part.ATTENTION),
    (re.compile(r"^experts$", re.IGNORECASE), Part.EXPERTS),
    (re.compile(r"^(mlp|ffn?|feed_?forward|.*moe|intermediate|output)(_block)?$", re.IGNORECASE), Part.MLP),
    (re.compile(r"^(mixer|mamba\d?|ssm|conv|linear_attn)$", re.IGNORECASE), Part.MIXER),
)
_CROSS = re.compile(r"(^|\.)(cross|enc(oder)?_?(dec|attn|attention))", re.IGNORECASE)
_SHARED = re.compile(r"(^|\.)shared_?(experts?|mlp)(\.|$)", re.IGNORECASE)
_LEFT_ALONE = re.compile(r"(^|\.)(router|[\w]*adapter[\w]*|lora[\w]*|[\w]*_gate)(\.|$)", re.IGNORECASE)


def part_of(block: nn.Module, path: str) -> Part | None:
    """Return what part of a block a module belongs to, or None where no module around it says so.

    The nearest module around it decides, by the name of its class and then by its own.

    Args:
        block: the block.
        path: of the module that holds the matrix, from the block on.
    """
    if _SHARED.search(path):
        return Part.SHARED_EXPERT
    around = (
        _first(_BY_CLASS, type(module).__name__) or _first(_BY_NAME, name) for name, module in _around(block, path)
    )
    found = [part for part in around if part is not None]
    if not found or (found[0] is Part.EXPERTS and Part.ATTENTION in found):  # a mixture of attention heads (JetMoE)
        return None
    return Part.CROSS_ATTENTION if found[0] is Part.ATTENTION and _CROSS.search(path) else found[0]


def is_left_alone(block: nn.Module, path: str) -> bool:
    """Return whether a module routes tokens to experts, gates a whole expert, or adapts another module."""
    around, _, name = path.rpartition(".")
    routes = name == "gate" and hasattr(block.get_submodule(around), "experts")
    return routes or "Router" in type(block.get_submodule(path)).__name__ or _LEFT_ALONE.search(path) is not None


def _around(block: nn.Module, path: str) -> Iterator[tuple[str, nn.Module]]:
    """Return the module and those around it, the nearest first."""
    parts = path.split(".")
    for length in range(len(parts), 0, -1):
        yield parts[length - 1], block.get_submodule(".".join(parts[:length]))


def _first(patterns: tuple[tuple[re.Pattern[str], Part], ...], text: str) -> Part | None:
    return next((part for pattern, part in patterns if pattern.search(text)), None)
