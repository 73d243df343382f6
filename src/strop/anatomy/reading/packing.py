"""How a fused matrix holds its parts, decided by what a few of its rows do."""

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from torch import nn
from transformers import PreTrainedModel

from strop.anatomy.families.spelling import Packing
from strop.anatomy.reading.inputs import Inputs, name_of
from strop.anatomy.reading.rows import AttentionRow, GatedRow, attention_rows, gated_rows
from strop.anatomy.sites import MatrixType
from strop.errors import AnatomyError, listed

_QKV = (MatrixType.QUERY, MatrixType.KEY, MatrixType.VALUE)
_GATE_UP = (MatrixType.GATE, MatrixType.UP)
_PACKINGS: tuple[Packing, ...] = ("stacked", "interleaved")
ENOUGH = 12
"""How many rows are looked at, where they tell all packings apart."""
Row = TypeVar("Row", AttentionRow, GatedRow)
Expected = TypeVar("Expected")


class UntoldPackingError(AnatomyError):
    """A fused matrix holds its parts in no order that is known."""


@dataclasses.dataclass(frozen=True)
class FoundPacking:
    """How a fused matrix holds its parts, as a Spelling says it."""

    packing: Packing
    packed: tuple[MatrixType, ...]


def attention_packing(
    model: PreTrainedModel,
    projection: nn.Module,
    output: nn.Module,
    *,
    head_count: int,
    key_value_head_count: int,
    head_size: int,
    inputs: Inputs | None = None,
) -> FoundPacking:
    """Return how a fused matrix holds query, key and value: in which order, stacked or head by head.

    Args:
        model: a model of transformers.
        projection: the module that makes all three.
        output: the module of attention's output matrix.
        head_count: of query heads.
        key_value_head_count: of key/value heads.
        head_size: how many rows a head has.
        inputs: what to call the model's body with, by name; short random token ids or an image by default.

    Raises:
        UntoldPackingError: no packing Strop knows does what the rows do.
        AnatomyError: no forward pass goes from `projection` to `output`.
    """
    share = head_count // key_value_head_count
    expected = {
        FoundPacking(packing, packed): _blocks_of_rows(packing, packed, share, key_value_head_count)
        for packed in itertools.permutations(_QKV)
        for packing in _PACKINGS
    }
    chosen = _telling(expected)
    rows = [block * head_size + head_size // 2 for block in chosen]
    found = attention_rows(model, projection, output, rows, head_size=head_size, inputs=inputs)
    return _fitting(expected, dict(zip(chosen, found, strict=True)), _serves, of=name_of(model, projection))


def gated_packing(
    model: PreTrainedModel, projection: nn.Module, down: nn.Module, *, row_count: int, inputs: Inputs | None = None
) -> FoundPacking:
    """Return how a fused matrix holds the gate and the up matrix of an MLP.

    Args:
        model: a model of transformers.
        projection: the module that makes both.
        down: the module of the MLP's down matrix.
        row_count: how many features `projection` returns.
        inputs: what to call the model's body with, by name; short random token ids or an image by default.

    Raises:
        UntoldPackingError: no packing Strop knows does what the rows do.
        AnatomyError: no forward pass goes from `projection` to `down`.
    """
    half = row_count // 2
    expected: dict[FoundPacking, list[tuple[MatrixType, int]]] = {}
    for packed in itertools.permutations(_GATE_UP):
        expected[FoundPacking("stacked", packed)] = [(part, row) for part in packed for row in range(half)]
        expected[FoundPacking("interleaved", packed)] = [(part, row) for row in range(half) for part in packed]
    chosen = _telling(expected)
    found = gated_rows(model, projection, down, chosen, inputs=inputs)
    return _fitting(expected, dict(zip(chosen, found, strict=True)), _makes, of=name_of(model, projection))


def _blocks_of_rows(
    packing: Packing, packed: Sequence[MatrixType], share: int, groups: int
) -> list[tuple[MatrixType, tuple[int, ...]]]:
    """Return of which matrix each block of head_size rows is, and which query heads it serves."""

    def of(part: MatrixType, group: int) -> list[tuple[MatrixType, tuple[int, ...]]]:
        heads = tuple(range(group * share, (group + 1) * share))
        return [(part, (head,)) for head in heads] if part is MatrixType.QUERY else [(part, heads)]

    if packing == "stacked":
        return [block for part in packed for group in range(groups) for block in of(part, group)]
    return [block for group in range(groups) for part in packed for block in of(part, group)]


def _telling(expected: Mapping[FoundPacking, Sequence[object]]) -> list[int]:
    """Return rows to look at: some, evenly chosen, and one for each two packings that these do not tell apart."""
    count = len(next(iter(expected.values())))
    chosen = {place * (count - 1) // (ENOUGH - 1) for place in range(ENOUGH)}
    for one, other in itertools.combinations(expected.values(), 2):
        differing = [row for row in range(count) if one[row] != other[row]]
        if differing and chosen.isdisjoint(differing):
            chosen.add(differing[len(differing) // 2])
    return sorted(chosen)


def _serves(found: AttentionRow, expected: tuple[MatrixType, tuple[int, ...]]) -> bool:
    role, heads = expected
    return found.role is role and {*heads} <= {*found.heads}  # a norm over all heads lets a row change them all


def _makes(found: GatedRow, expected: tuple[MatrixType, int]) -> bool:
    return found.role is None or (found.role, found.feature) == expected  # a gate may be shut for all tokens


def _fitting(
    expected: Mapping[FoundPacking, Sequence[Expected]],
    found: Mapping[int, Row],
    fits: Callable[[Row, Expected], bool],
    *,
    of: str,
) -> FoundPacking:
    """Return the packing of which every row that was looked at does what it should.

    Raises:
        UntoldPackingError: there is none, or the rows do not tell several apart.
    """
    fitting = [
        packing for packing, rows in expected.items() if all(fits(row, rows[index]) for index, row in found.items())
    ]
    if fitting and all(expected[packing] == expected[fitting[0]] for packing in fitting):
        return fitting[0]
    shown = listed((f"{index}: {row}" for index, row in found.items()), most=4)
    raise UntoldPackingError(f"{of} holds its parts in no order Strop can tell; its blocks of rows serve as {shown}.")
