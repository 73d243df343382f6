"""Check that the rows a spelling gives a matrix serve as its name says."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from strop.anatomy.families import Spelling
from strop.anatomy.reading.inputs import Inputs, name_of
from strop.anatomy.reading.rows import attention_rows, gated_rows
from strop.anatomy.sites import HEADED, MatrixType, Stack, WeightSite
from strop.anatomy.sizes import StackSizes
from strop.anatomy.slices import rows_view
from strop.errors import AnatomyError

_QKV = (MatrixType.QUERY, MatrixType.KEY, MatrixType.VALUE)
_GATED = (MatrixType.GATE, MatrixType.UP)
Spelled = Mapping[MatrixType, Spelling]


def refuse_other_roles(
    model: PreTrainedModel,
    block: nn.Module,
    spelled: Spelled,
    sizes: StackSizes,
    *,
    layer: int,
    stack: Stack | None = None,
    inputs: Inputs | None = None,
) -> frozenset[MatrixType]:
    """Return the matrices of a block whose rows serve as they are spelled; of the others nothing could be seen.

    Args:
        model: whose block it is.
        block: one that a forward pass reaches.
        spelled: where in it each matrix lives.
        sizes: of the stack.
        layer: the block's.
        stack: which list of blocks, where the model has several.
        inputs: what to call the model's body with, by name; short random token ids or an image by default.

    Raises:
        AnatomyError: a row serves as another matrix or another head than its spelling says; or no forward pass goes from a
            matrix to the one that reads it.
        UneditableWeightError: a packed matrix has other rows than its parts make up.
    """
    seen = {
        part: spelling
        for part, spelling in spelled.items()
        if spelling.is_tappable and not spelling.has_experts and not _holds_more(block, part, spelling, sizes)
    }
    check = _Check(model, block, seen, sizes, layer, stack, inputs)
    told: set[MatrixType] = set()
    if MatrixType.OUTPUT in seen and sizes.head_size > 1:
        for parts in _by_module(seen):
            told |= check.attention(parts)
    if {*_GATED, MatrixType.DOWN} <= seen.keys():
        told |= check.gated()
    return frozenset(told)


def _holds_more(block: nn.Module, part: MatrixType, spelling: Spelling, sizes: StackSizes) -> bool:
    """Return whether a matrix of its own has other rows than its heads make up, as one with an output gate beside the queries."""
    if part not in HEADED or spelling.packing != "whole":
        return False
    weight = block.get_submodule(spelling.path).get_parameter("weight")
    return weight.shape[1 if spelling.transposed else 0] != sizes.heads_of(part) * sizes.head_size


def _by_module(spelled: Spelled) -> list[list[MatrixType]]:
    """Return which of query, key and value are spelled, those of one module together."""
    modules: dict[str, list[MatrixType]] = {}
    for part in (part for part in _QKV if part in spelled):
        modules.setdefault(spelled[part].path, []).append(part)
    return list(modules.values())


class _Check:
    """The check of one block."""

    def __init__(
        self,
        model: PreTrainedModel,
        block: nn.Module,
        spelled: Spelled,
        sizes: StackSizes,
        layer: int,
        stack: Stack | None,
        inputs: Inputs | None,
    ) -> None:
        self._model, self._block, self._spelled, self._sizes = model, block, spelled, sizes
        self._layer, self._stack, self._inputs = layer, stack, inputs

    def attention(self, parts: list[MatrixType]) -> set[MatrixType]:
        """Check the first and the last head of each of some matrices that one module makes."""
        output, size = self._module(MatrixType.OUTPUT), self._sizes.head_size
        wanted: list[tuple[WeightSite, int, set[int]]] = []
        for part in parts:
            for head in sorted({0, self._sizes.heads_of(part) - 1}):
                share = self._sizes.head_count // self._sizes.heads_of(part)
                site = self._site(part, head)
                row = int(self._rows(site)[size // 2])
                wanted.append((site, row, set(range(head * share, (head + 1) * share))))
        projection, rows, untold = self._module(parts[0]), [row for _, row, _ in wanted], set[MatrixType]()
        fused = self._spelled[parts[0]].packing != "whole"
        found = attention_rows(self._model, projection, output, rows, head_size=size, inputs=self._inputs)
        for (site, row, heads), seen in zip(wanted, found, strict=True):
            blurred = site.matrix_type is MatrixType.VALUE and seen.role is MatrixType.KEY and heads < {*seen.heads}
            if blurred or seen.role is None:  # as where values decide which tokens are seen (Doge)
                untold.add(site.matrix_type)
            elif seen.role is not site.matrix_type or (fused and not heads <= {*seen.heads}):
                self._refuse(site, projection, row, str(seen))
        return {*parts} - untold

    def gated(self) -> set[MatrixType]:
        """Check the first and the last row of gate and up."""
        down, told = self._module(MatrixType.DOWN), set[MatrixType]()
        for part in _GATED:
            site, projection = self._site(part, None), self._module(part)
            rows = self._rows(site).flatten()
            ends = {0: int(rows[0]), len(rows) - 1: int(rows[-1])}
            found = gated_rows(self._model, projection, down, list(ends.values()), inputs=self._inputs)
            for (feature, row), seen in zip(ends.items(), found, strict=True):
                if seen.role is not None and (seen.role, seen.feature) != (part, feature):
                    self._refuse(site, projection, row, str(seen))
            if all(seen.role is part for seen in found):
                told.add(part)
        return told

    def _refuse(self, site: WeightSite, projection: nn.Module, row: int, seen: str) -> None:
        raise AnatomyError(
            f"{site}: row {row} of {name_of(self._model, projection)}, said to be its, serves as {seen}; correct the spelling's "
            "path, packing or packed."
        )

    def _site(self, part: MatrixType, head: int | None) -> WeightSite:
        return WeightSite(self._layer, part, head=head, stack=self._stack)

    def _module(self, part: MatrixType) -> nn.Module:
        return self._block.get_submodule(self._spelled[part].path)

    def _rows(self, site: WeightSite) -> Tensor:
        """Return which outputs of its module a site's rows make."""
        spelling = self._spelled[site.matrix_type]
        weight = self._module(site.matrix_type).get_parameter("weight")
        count = weight.shape[1 if spelling.transposed else 0]
        return rows_view(torch.arange(count), site, spelling, self._sizes)
