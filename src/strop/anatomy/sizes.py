"""How large the blocks of a model's stacks are, and which matrices each of them has."""

import dataclasses
import operator
from collections.abc import Mapping
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from strop.anatomy.families import Family, Spelling
from strop.anatomy.sites import ATTENTION, MatrixType, Stack
from strop.errors import AnatomyError, UneditableWeightError, UnknownArchitectureError


@dataclasses.dataclass(frozen=True)
class StackSizes:
    """The sizes of one stack's blocks, and how each of them spells its matrices."""

    layer_count: int
    hidden_size: int
    head_count: int
    """Query heads; 0 where the config says nothing of heads, as that of a state space model."""
    key_value_head_count: int
    head_size: int
    expert_counts: tuple[int, ...]
    """How many experts each layer's block has; 0 where its MLP is no mixture."""
    spellings: tuple[Mapping[MatrixType, Spelling], ...]
    """The matrices each layer's block has; a type that no block has stands in all as the family spells it."""

    def heads_of(self, matrix_type: MatrixType) -> int:
        """Return how many heads share an attention matrix of this type."""
        grouped = matrix_type in (MatrixType.KEY, MatrixType.VALUE)
        return self.key_value_head_count if grouped else self.head_count


def sizes_of(model: PreTrainedModel, family: Family, stack: Stack | None) -> StackSizes:
    """Return the sizes of one stack's blocks: the model's layers and experts, and what its config says of the rest.

    Raises:
        UnknownArchitectureError: the model has no such list of blocks.
        AnatomyError: the config does not say a size.
    """
    path = family.paths[stack]
    try:
        blocks: nn.ModuleList = operator.attrgetter(path)(model)
    except AttributeError:
        raise UnknownArchitectureError(
            f"{type(model).__name__} has no {path}, where a {family.name} model keeps its blocks; "
            "load it with its head (AutoModelForCausalLM or AutoModelForSequenceClassification), or describe it with a "
            "Family of its own."
        ) from None
    config = config_of(model, stack)
    hidden_size = _size(config, "hidden_size")
    has_heads = not ATTENTION.isdisjoint(family.matrices_of(stack)) or hasattr(config, "num_attention_heads")
    heads = _size(config, "num_attention_heads") if has_heads else 0
    spellings = _spellings(blocks, family, stack)
    return StackSizes(
        layer_count=len(blocks),
        hidden_size=hidden_size,
        head_count=heads,
        key_value_head_count=_key_value_heads(config, heads),
        head_size=(getattr(config, "head_dim", None) or hidden_size // heads) if heads else 0,
        expert_counts=tuple(
            max((_expert_count(block, spelling) for spelling in own.values() if spelling.has_experts), default=0)
            for block, own in zip(blocks, spellings, strict=True)
        ),
        spellings=spellings,
    )


def _spellings(blocks: nn.ModuleList, family: Family, stack: Stack | None) -> tuple[Mapping[MatrixType, Spelling], ...]:
    """Return how each block spells what it has: by the first spelling of each type that fits it."""
    found: list[dict[MatrixType, Spelling]] = [{} for _ in blocks]
    for matrix_type, spellings in family.matrices_of(stack).items():
        fitting = [next((each for each in spellings if _fits(block, each)), None) for block in blocks]
        absent = (
            spellings[0] if not any(fitting) else None
        )  # said to be there: what is missing is named where it is asked for
        for own, spelling in zip(found, fitting, strict=True):
            chosen = spelling or absent
            if chosen is not None:
                own[matrix_type] = chosen
    return tuple(found)


def _fits(block: nn.Module, spelling: Spelling) -> bool:
    return _part(block, spelling.module_path(0)) is not None


def _key_value_heads(config: Any, heads: int) -> int:
    """Return how many key/value heads a config says there are: Falcon and GPT-BigCode name them by other settings."""
    grouped = getattr(config, "num_key_value_heads", None)
    if grouped:
        return int(grouped)
    if getattr(config, "new_decoder_architecture", False):
        return int(config.num_kv_heads)
    return 1 if getattr(config, "multi_query", False) else heads


def config_of(model: PreTrainedModel, stack: Stack | None) -> Any:
    """Return the config that speaks of a stack: of several kinds of input that of the text, of images alone that of vision.

    Raises:
        AnatomyError: a vision stack is asked for, and the config says nothing of one.
    """
    if stack is None:
        seeing = getattr(model.config, "vision_config", None) if model.main_input_name == "pixel_values" else None
        return seeing or model.config.get_text_config()
    if stack is not Stack.VISION:
        return model.config.get_text_config(encoder=stack is Stack.ENCODER, decoder=stack is not Stack.ENCODER)
    found = getattr(model.config, "vision_config", None)
    if found is None:
        raise AnatomyError(
            f"{type(model.config).__name__} has no vision_config that gives the sizes of a vision stack."
        )
    return found


def _size(config: Any, name: str) -> int:
    found = getattr(config, name, None)
    if not isinstance(found, int):
        raise AnatomyError(
            f"{type(config).__name__} gives no {name}, and without it no matrix can be told from another."
        )
    return found


def refuse_router(model: PreTrainedModel, weight: nn.Parameter, name: str) -> None:
    """Raise UneditableWeightError if what is said to be an MLP's gate has a row for each expert: it chooses among them."""
    config = model.config.get_text_config()
    counts = {getattr(config, setting, None) for setting in ("num_local_experts", "num_experts", "n_routed_experts")}
    if weight.shape[0] in counts:
        raise UneditableWeightError(
            f"{name} is a router, with a row for each of {weight.shape[0]} experts, and no gate of an MLP; name the matrix of "
            "the experts."
        )


def _expert_count(block: nn.Module, spelling: Spelling) -> int:
    if spelling.experts == "stacked":
        parameter = _part(block, f"{spelling.path}.{spelling.parameter}")
        return 0 if parameter is None else int(parameter.shape[0])
    count = 0
    while _part(block, spelling.module_path(count)) is not None:
        count += 1
    return count


def _part(block: nn.Module, path: str) -> Any:
    try:
        return operator.attrgetter(path)(block)
    except AttributeError:
        return None
