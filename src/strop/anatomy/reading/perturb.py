"""Change one feature of what a module returns, and look at what another module is given for it."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from strop.anatomy.calling import evaluating
from strop.anatomy.reading.inputs import Inputs, copies, run, short_inputs
from strop.errors import AnatomyError

TOKEN = 1
"""The token whose feature is changed: one comes before it, and some after."""


class _EnoughError(Exception):
    """The pass has shown what it was made for."""


@dataclasses.dataclass(frozen=True, eq=False)
class Answers:
    """What a module is given, before and after features of another's output were changed, in float64."""

    before: Tensor
    """(tokens, features)."""
    after: Tensor
    """(2, changed features, tokens, features): where the feature was raised, and where it was lowered."""
    rounding: float
    """The share of a number that its dtype cannot tell from it."""

    def unscaled(self, group_size: int) -> Tensor:
        """Return what comes after without what a norm in between makes of it: a factor common to a token's group of features.

        The factor is the median of the ratios, so that it is 1 where nothing but some features of a group has changed. What a
        factor brings back to what it was, but for rounding, is as it was.

        Returns:
            (2, changed features, tokens, features).
        """
        before = self.before.reshape(len(self.before), -1, group_size)
        after = self.after.reshape(*self.after.shape[:2], *before.shape)
        ratios = torch.where(before == 0, torch.nan, after / before)
        factors = ratios.nanmedian(-1, keepdim=True).values.nan_to_num(1.0)
        unscaled = after / torch.where(factors == 0, 1.0, factors)
        same = (factors != 1) & ((unscaled - before).abs() <= 8 * self.rounding * before.abs())
        return torch.where(same, before, unscaled).reshape(self.after.shape)


def answers(
    model: PreTrainedModel,
    source: nn.Module,
    reader: nn.Module,
    features: Sequence[int],
    *,
    tokens: slice = slice(TOKEN, TOKEN + 1),
    inputs: Inputs | None = None,
) -> Answers:
    """Return what `reader` is given when one feature that `source` returns is raised, and when it is lowered.

    Copies of one short input run together, up to `reader` and no further; each has a feature of its own changed, by eight
    times the root mean square of what `source` returns, and by eight where that is less: an activation is a line near zero.

    Args:
        model: a model of transformers.
        source: a module inside it that returns (batch, tokens, features), or tokens one after another.
        reader: a module that runs after it.
        features: which to change.
        tokens: those whose features are changed; one by default.
        inputs: what to call the model's body with, by name; the first of each batch is used. Short random token ids or an
            image by default.

    Raises:
        AnatomyError: the pass does not reach `reader` through `source`.
    """
    count = 1 + 2 * len(features)
    given: list[Tensor] = []
    changed: list[bool] = []

    def change(_module: nn.Module, _arguments: tuple[Any, ...], output: Any) -> Tensor | None:
        if changed or not isinstance(output, Tensor) or output.shape[0] % count:
            return None  # called again, or for something else than the tokens (DeBERTa's relative positions)
        changed.append(True)
        own = output.reshape(count, -1, output.shape[-1])
        own = own[:1].expand_as(own).clone()
        size = 8 * max(own[0].float().square().mean().sqrt().item(), 1.0)
        for sign in (1, -1):
            start = 1 if sign > 0 else 1 + len(features)
            for place, feature in enumerate(features, start):
                own[place, tokens, feature] += sign * size
        return own.view_as(output)

    def look(_module: nn.Module, arguments: tuple[Any, ...]) -> None:
        if changed:
            given.append(arguments[0].detach())
            raise _EnoughError

    handles = [source.register_forward_hook(change), reader.register_forward_pre_hook(look)]
    try:
        with torch.no_grad(), evaluating(model):
            run(model, copies(inputs or short_inputs(model), count))
    except _EnoughError:
        pass
    finally:
        for handle in handles:
            handle.remove()
    if not given:
        raise AnatomyError(
            "A forward pass does not go from the one module to the other, so what its rows do cannot be seen."
        )
    states = given[0].reshape(count, -1, given[0].shape[-1]).double()
    after = states[1:].reshape(2, len(features), *states.shape[1:])
    return Answers(states[0], after, torch.finfo(given[0].dtype).eps)
