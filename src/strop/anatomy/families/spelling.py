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
            Phi-3); `interleaved`: for each key/value head the slices of the query heads that share it, of its key and of its
            value (GPT-NeoX, Falcon), or one row of each in an MLP (GPT-OSS).
        packed: what the parameter holds, in order, where it holds several.
        transposed: the matrix is stored as (in, out), as transformers' Conv1D does.
        parameter: the module's parameter that holds the matrix.
        experts: `stacked` where the parameter holds the matrices of all experts: (experts, out, in), or
            (experts, in, out) where it is transposed; None where it does not.
        called: False where the block reads the module's weight and never calls the module (Mamba's `dt_proj`), or calls it for
            more than its tokens (the queries of a DeBERTa that shares them with relative positions).

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
    called: bool = True

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
        """Whether the module's input and output are those of the matrix: no larger module reads the parameter itself."""
        return self.parameter == "weight" and self.experts is None and self.called

    @property
    def sees_every_token(self) -> bool:
        """Whether the module's input and output are those of the matrix, at every token: it is no expert's."""
        return self.is_tappable and not self.has_experts

    def module_path(self, expert: int | None) -> str:
        """Return the path of the module that holds one expert's matrix, or the only one."""
        return self.path if expert is None else self.path.replace(EXPERT, str(expert))


Matrices = Mapping[MatrixType, Spelling | tuple[Spelling, ...]]
"""The spelling of each matrix type; several where a block of one layer has another than that of the next, and each block the
first that fits it."""


@dataclasses.dataclass(frozen=True)
class Family:
    """One architecture's spelling.

    Args:
        name: what people call it.
        model_types: the `model_type` values in a config.json it covers.
        blocks: path of the list of blocks, from the model with its LM head on.
        matrices: the spelling of each matrix type a block has; several where layers differ, and a layer has the first it fits.
        block_returns: what a block's forward gives back: the hidden state, or a tuple that begins with it.
        causal: a token sees only those before it; an encoder's sees all.
        positions_after_padding: position ids count on from the padding token's id, so that the context is that much shorter
            than the config says (RoBERTa).
        calls_per_block: how often a block runs in one pass: more than once where layers share it (ALBERT), so that an edit of
            one is an edit of all.
        stacks: the path of each list of blocks, where there are several; one that has the path of `blocks` gives the main
            stack its name, which has none otherwise. `cross` alone shares its path with another, the decoder's.
        stack_matrices: the spelling of a stack whose blocks are not made like `matrices` says.
        resumes: a block goes on from hidden states alone, and is run once. It is false of encoder-decoders, where the decoder reads
            what the encoder made, and of blocks that are run several times (ALBERT): these are always run whole.

    Raises:
        AnatomyError: a matrix is not among the parts it is said to be packed with, or the stacks contradict each other.
    """

    name: str
    model_types: tuple[str, ...]
    blocks: str
    matrices: Matrices
    block_returns: Literal["tensor", "tuple"] = "tensor"
    causal: bool = True
    positions_after_padding: bool = False
    calls_per_block: int = 1
    stacks: Mapping[Stack | None, str] = dataclasses.field(default_factory=dict)
    stack_matrices: Mapping[Stack | None, Matrices] = dataclasses.field(default_factory=dict)
    resumes: bool = True

    def __post_init__(self) -> None:
        for stack in (None, *self.stack_matrices):
            for matrix_type, spellings in self.matrices_of(stack).items():
                for spelling in spellings:
                    if spelling.packed and matrix_type not in spelling.packed:
                        raise AnatomyError(
                            f"{spelling.path}: {matrix_type} is not among the parts it is packed with, "
                            f"{', '.join(spelling.packed)}."
                        )
        alone = [path for stack, path in self.stacks.items() if stack is not Stack.CROSS]
        if len(set(alone)) < len(alone):
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
        named = (stack for stack, path in self.stacks.items() if path == self.blocks and stack is not Stack.CROSS)
        return next(named, None)

    @property
    def paths(self) -> dict[Stack | None, str]:
        """The path of each stack's list of blocks, the main one's first."""
        return {self.main_stack: self.blocks, **self.stacks}

    def matrices_of(self, stack: Stack | None) -> dict[MatrixType, tuple[Spelling, ...]]:
        """Return the spellings of each matrix type that blocks of a stack have, the first choice first."""
        matrices = self.stack_matrices.get(stack, self.matrices)
        return {
            matrix_type: (spelled,) if isinstance(spelled, Spelling) else tuple(spelled)
            for matrix_type, spelled in matrices.items()
        }
