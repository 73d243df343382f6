"""How large the blocks of a model's stacks are."""

import dataclasses
import operator
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from strop.anatomy.families import Family, Spelling
from strop.anatomy.sites import MatrixType, Stack
from strop.errors import AnatomyError, UneditableWeightError, UnknownArchitectureError


@dataclasses.dataclass(frozen=True)
class StackSizes:
    """The sizes of one stack's blocks."""

    layer_count: int
    hidden_size: int
    head_count: int
    key_value_head_count: int
    head_size: int
    expert_counts: tuple[int, ...]
    """How many experts each layer's block has; 0 where its MLP is no mixture."""

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
    heads, hidden_size = _size(config, "num_attention_heads"), _size(config, "hidden_size")
    with_experts = [spelling for spelling in family.matrices_of(stack).values() if spelling.has_experts]
    return StackSizes(
        layer_count=len(blocks),
        hidden_size=hidden_size,
        head_count=heads,
        key_value_head_count=getattr(config, "num_key_value_heads", None) or heads,
        head_size=getattr(config, "head_dim", None) or hidden_size // heads,
        expert_counts=tuple(
            max((_expert_count(block, spelling) for spelling in with_experts), default=0) for block in blocks
        ),
    )


def config_of(model: PreTrainedModel, stack: Stack | None) -> Any:
    """Return the config that speaks of a stack: that of the text model inside a model of several kinds of input.

    Raises:
        AnatomyError: a vision stack is asked for, and the config says nothing of one.
    """
    if stack is None:
        return model.config.get_text_config()
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
