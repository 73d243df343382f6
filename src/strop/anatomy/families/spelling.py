"""How one architecture spells the matrices of a block, as data."""

import dataclasses
from collections.abc import Mapping
from typing import Literal

from strop.anatomy.sites import MatrixType
from strop.errors import AnatomyError

Packing = Literal["whole", "stacked", "interleaved"]


@dataclasses.dataclass(frozen=True)
class Spelling:
    """Where in a block a matrix type lives.

    Args:
        path: the module, from the block on: `self_attn.q_proj`.
        packing: `whole`: the module holds this matrix alone; `stacked`: several matrices one below the other (GPT-2,
            Phi-3); `interleaved`: for each head, one slice of each (GPT-NeoX).
        packed: what the module holds, in order, where it holds several.
        transposed: the weight is stored as (in, out), as transformers' Conv1D does.

    Raises:
        AnatomyError: a packing without its parts, or parts without a packing.
    """

    path: str
    packing: Packing = "whole"
    packed: tuple[MatrixType, ...] = ()
    transposed: bool = False

    def __post_init__(self) -> None:
        if (self.packing == "whole") != (not self.packed):
            raise AnatomyError(
                f"{self.path}: a {self.packing} matrix goes with {'no' if self.packed else 'its'} parts."
            )


@dataclasses.dataclass(frozen=True)
class BiasFlag:
    """A setting of a config that gives the modules of some matrices a bias, in all layers or in none.

    Args:
        name: the setting, false where there is no bias: `attention_bias`.
        matrix_types: the matrices whose modules it gives one.
        model_types: the family's `model_type` values whose config has it.
    """

    name: str
    matrix_types: tuple[MatrixType, ...]
    model_types: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Family:
    """One architecture's spelling.

    Args:
        name: what people call it.
        model_types: the `model_type` values in a config.json it covers.
        blocks: path of the list of blocks, from the model with its LM head on.
        matrices: the spelling of each matrix type a block has.
        block_returns: what a block's forward gives back: the hidden state, or a tuple that begins with it.
        bias_flags: the settings that give a bias to modules made without one; nothing where there is no such setting.
        causal: a token sees only those before it; an encoder's sees all.
        positions_after_padding: position ids count on from the padding token's id, so that the context is that much shorter
            than the config says (RoBERTa).
    """

    name: str
    model_types: tuple[str, ...]
    blocks: str
    matrices: Mapping[MatrixType, Spelling]
    block_returns: Literal["tensor", "tuple"] = "tensor"
    bias_flags: tuple[BiasFlag, ...] = ()
    causal: bool = True
    positions_after_padding: bool = False

    def bias_flag(self, matrix_type: MatrixType, model_type: str) -> BiasFlag | None:
        """Return the setting that gives a matrix's module a bias, or None where the architecture has none."""
        fitting = (
            flag for flag in self.bias_flags if matrix_type in flag.matrix_types and model_type in flag.model_types
        )
        return next(fitting, None)
