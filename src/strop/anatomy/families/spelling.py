"""How one architecture spells the matrices of a block, as data."""

import dataclasses
from collections.abc import Mapping
from typing import Literal

from strop.anatomy.sites import HEADED, MatrixType, Stack
from strop.errors import AnatomyError

Packing = Literal["whole", "stacked", "interleaved"]
EXPERT = "{expert}"


@dataclasses.dataclass(frozen=True)
class Spelling:
    """Where in a block a matrix type lives.

    Args:
        path: the module, from the block on: `self_attn.q_proj`. Where each expert of a mixture has a module of its own,
            `{expert}` stands for its number: `block_sparse_moe.experts.{expert}.w1`.
        packing: `whole`: the parameter holds this matrix alone; `stacked`: several matrices one below the other (GPT-2,
            Phi-3); `interleaved`: for each head, one slice of each (GPT-NeoX), or one row of each in an MLP (GPT-OSS).
        packed: what the parameter holds, in order, where it holds several.
        transposed: the matrix is stored as (in, out), as transformers' Conv1D does.
        parameter: the module's parameter that holds the matrix.
        experts: `stacked` where the parameter holds the matrices of all experts: (experts, out, in), or
            (experts, in, out) where it is transposed; None where it does not.

    Raises:
        AnatomyError: a packing without its parts, parts without a packing, heads interleaved with what has none, or
            experts that are stacked and have modules of their own too.
    """

    path: str
    packing: Packing = "whole"
    packed: tuple[MatrixType, ...] = ()
    transposed: bool = False
    parameter: str = "weight"
    experts: Literal["stacked"] | None = None

    def __post_init__(self) -> None:
        if (self.packing == "whole") != (not self.packed):
            raise AnatomyError(
                f"{self.path}: a {self.packing} matrix goes with {'no' if self.packed else 'its'} parts."
            )
        if self.packing == "interleaved" and len({part in HEADED for part in self.packed}) > 1:
            raise AnatomyError(
                f"{self.path}: {', '.join(self.packed)} cannot be interleaved, for not all of them are made of heads."
            )
        if self.experts is not None and EXPERT in self.path:
            raise AnatomyError(
                f"{self.path}: experts are either stacked or have modules of their own; name one of both."
            )

    @property
    def has_experts(self) -> bool:
        """Whether each expert of a mixture has such a matrix of its own."""
        return self.experts is not None or EXPERT in self.path

    @property
    def is_tappable(self) -> bool:
        """Whether the module's input and output are those of the matrix: it is no raw parameter of a larger module."""
        return self.parameter == "weight" and self.experts is None

    def module_path(self, expert: int | None) -> str:
        """Return the path of the module that holds one expert's matrix, or the only one."""
        return self.path if expert is None else self.path.replace(EXPERT, str(expert))


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
        stacks: the path of each list of blocks, where there are several; one that has the path of `blocks` gives the main
            stack its name, which has none otherwise.
        stack_matrices: the spelling of a stack whose blocks are not made like `matrices` says.
        resumes: a block goes on from hidden states alone, and is run once. It is false of encoder-decoders, where the decoder reads
            what the encoder made, and of blocks that are run several times (ALBERT): these are always run whole.

    Raises:
        AnatomyError: a matrix is not among the parts it is said to be packed with, or the stacks contradict each other.
    """

    name: str
    model_types: tuple[str, ...]
    blocks: str
    matrices: Mapping[MatrixType, Spelling]
    block_returns: Literal["tensor", "tuple"] = "tensor"
    bias_flags: tuple[BiasFlag, ...] = ()
    causal: bool = True
    positions_after_padding: bool = False
    stacks: Mapping[Stack | None, str] = dataclasses.field(default_factory=dict)
    stack_matrices: Mapping[Stack | None, Mapping[MatrixType, Spelling]] = dataclasses.field(default_factory=dict)
    resumes: bool = True

    def __post_init__(self) -> None:
        for matrices in (self.matrices, *self.stack_matrices.values()):
            for matrix_type, spelling in matrices.items():
                if spelling.packed and matrix_type not in spelling.packed:
                    raise AnatomyError(
                        f"{spelling.path}: {matrix_type} is not among the parts it is packed with, {', '.join(spelling.packed)}."
                    )
        apart = [path for stack, path in self.stacks.items() if stack is not Stack.CROSS]
        if len(set(apart)) < len(apart):
            raise AnatomyError(f"{self.name}: each stack has a path of its own.")
        if self.stacks.get(None, self.blocks) != self.blocks:
            raise AnatomyError(f"{self.name}: the stack without a name is the main one, whose path is {self.blocks}.")
        for stack in self.stack_matrices:
            if stack not in self.paths:
                raise AnatomyError(
                    f"{self.name}: the matrices of a stack '{stack}' are spelled, and stacks has no such path."
                )

    @property
    def main_stack(self) -> Stack | None:
        """The name of the stack whose path is `blocks`."""
        apart = {stack: path for stack, path in self.stacks.items() if stack is not Stack.CROSS}
        return next((stack for stack, path in apart.items() if path == self.blocks), None)

    @property
    def paths(self) -> dict[Stack | None, str]:
        """The path of each stack's list of blocks, the main one's first."""
        return {self.main_stack: self.blocks, **self.stacks}

    def matrices_of(self, stack: Stack | None) -> Mapping[MatrixType, Spelling]:
        """Return the spelling of each matrix type a block of a stack has."""
        return self.stack_matrices.get(stack, self.matrices)

    def bias_flag(self, matrix_type: MatrixType, model_type: str) -> BiasFlag | None:
        """Return the setting that gives a matrix's module a bias, or None where the architecture has none."""
        fitting = (
            flag for flag in self.bias_flags if matrix_type in flag.matrix_types and model_type in flag.model_types
        )
        return next(fitting, None)
