"""What each row of a block's projections does, found by changing what it makes and looking at what becomes of it."""

import dataclasses
from collections.abc import Sequence

from torch import nn
from transformers import PreTrainedModel

from strop.anatomy.reading.inputs import Inputs
from strop.anatomy.reading.perturb import TOKEN, answers
from strop.anatomy.sites import MatrixType

ROUNDING = 1e-3
"""The share of the largest change below which nothing is said to have changed."""


@dataclasses.dataclass(frozen=True)
class AttentionRow:
    """What one row of an attention projection does."""

    role: MatrixType | None
    """Query, key or value; None where its effect is that of none of them."""
    heads: tuple[int, ...]
    """The query heads whose outputs it changes."""

    def __str__(self) -> str:
        if self.role is None:
            return "neither query, key nor value"
        if not self.heads:
            return f"{self.role} of no head"
        heads = f"heads {self.heads[0]} to {self.heads[-1]}" if len(self.heads) > 1 else f"head {self.heads[0]}"
        return f"{self.role} of {heads}"


@dataclasses.dataclass(frozen=True)
class GatedRow:
    """What one row of a gated MLP's projection does."""

    role: MatrixType | None
    """Gate where an activation comes after it, up where none does; None where it changes no feature, for the gate is shut, or
    several."""
    feature: int
    """The input of the down matrix it changes."""

    def __str__(self) -> str:
        return f"{self.role or 'neither gate nor up'} of feature {self.feature}"


def attention_rows(
    model: PreTrainedModel,
    projection: nn.Module,
    output: nn.Module,
    rows: Sequence[int],
    *,
    head_size: int,
    inputs: Inputs | None = None,
) -> tuple[AttentionRow, ...]:
    """Return what rows of an attention projection do, seen at the input of attention's output matrix.

    A query row of a token changes what that token's head takes in, and no other token's. A key row and a value row change
    what other tokens take in: a key row by moving their attention, hence all features of its heads; a value row one feature.

    Args:
        model: a model of transformers.
        projection: the module that makes query, key or value, or several of them.
        output: the module whose input is what the heads take in, head after head.
        rows: features of what `projection` returns.
        head_size: how many features a head has; more than one.
        inputs: what to call the model's body with, by name; short random token ids or an image by default.

    Raises:
        AnatomyError: a forward pass does not go from `projection` to `output`.
    """
    seen = answers(model, projection, output, rows, inputs=inputs)
    moved = (seen.after - seen.before).abs().amax(0)
    own = (seen.unscaled(head_size) - seen.before).abs().amax(0)
    found = []
    for change, features in zip(moved, own, strict=True):  # (tokens, features)
        changed = change > ROUNDING * change.max()
        elsewhere = bool(changed[:TOKEN].any() or changed[TOKEN + 1 :].any())
        reached = (features > ROUNDING * features.max()).any(0).reshape(-1, head_size).sum(-1)
        heads = tuple(reached.nonzero().flatten().tolist())
        narrow = bool((reached <= 1).all())
        role = (MatrixType.VALUE if narrow else MatrixType.KEY) if elsewhere else None if narrow else MatrixType.QUERY
        found.append(AttentionRow(role, heads))
    return tuple(found)


def gated_rows(
    model: PreTrainedModel,
    projection: nn.Module,
    down: nn.Module,
    rows: Sequence[int],
    *,
    inputs: Inputs | None = None,
) -> tuple[GatedRow, ...]:
    """Return what rows of a gated MLP's projection do, seen at the input of its down matrix, act(gate) · up.

    Raising and lowering an up row by as much change that product by as much; a gate row's activation bends.

    Args:
        model: a model of transformers.
        projection: the module that makes gate or up, or both.
        down: the module whose input is the product.
        rows: features of what `projection` returns.
        inputs: what to call the model's body with, by name; short random token ids or an image by default.

    Raises:
        AnatomyError: a forward pass does not go from `projection` to `down`.
    """
    seen = answers(model, projection, down, rows, tokens=slice(None), inputs=inputs)
    own = seen.unscaled(seen.before.shape[-1]) - seen.before
    found = []
    for raised, lowered in own.transpose(0, 1):  # (tokens, features)
        reach = raised.abs().maximum(lowered.abs()).amax(0)
        feature = int(reach.argmax())
        alone = int((reach > ROUNDING * reach[feature]).sum()) == 1
        bend, slope = (change[:, feature].abs().max() for change in (raised + lowered, raised - lowered))
        found.append(GatedRow((MatrixType.GATE if bend > 0.1 * slope else MatrixType.UP) if alone else None, feature))
    return tuple(found)
