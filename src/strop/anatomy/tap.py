"""Look at what goes into and comes out of the modules that hold some matrices."""

import dataclasses
from collections import defaultdict
from collections.abc import Sequence

from torch import Tensor, nn
from transformers import PreTrainedModel

from strop.anatomy.anatomy import Anatomy
from strop.anatomy.sites import WeightSite
from strop.errors import AnatomyError


def by_sequence(states: Tensor, like: Tensor) -> Tensor:
    """Return what a module saw of a batch, sequence by sequence.

    It may have seen all tokens one after another (OPT), or with an axis of size 1 among the others (DeepSeek).

    Args:
        states: (batch, tokens, features), or (batch · tokens, features), axes of size 1 not counted.
        like: (batch, tokens, …), such as the token ids.

    Returns:
        (batch, tokens, features).

    Raises:
        AnatomyError: the module saw other tokens than those of the batch, as an expert of a mixture does.
    """
    batch, tokens = like.shape[:2]
    axes = [size for size in states.shape[:-1] if size != 1]
    if axes not in ([size for size in (batch, tokens) if size != 1], [batch * tokens]):
        raise AnatomyError(
            f"A module saw states of shape {tuple(states.shape)}, which are not those of {batch} x {tokens} tokens: which "
            "tokens they are of cannot be known; use what reads the weights alone, such as a rank reduction."
        )
    return states.reshape(batch, tokens, states.shape[-1])


@dataclasses.dataclass(frozen=True, eq=False)
class Call:
    """What went into a module and came out of it; see `by_sequence` for one that is given a batch's tokens one after another."""

    inputs: Tensor
    """(batch, tokens, in), detached."""
    output: Tensor
    """(batch, tokens, features)."""


class Tap:
    """Keep, for the length of a `with` block, the inputs and outputs of the modules that hold some sites.

    Args:
        model: a causal language model.
        anatomy: of that model.
        sites: several may share a module.

    Raises:
        AnatomyError: a site's matrix has no module whose inputs and outputs are its own.
    """

    def __init__(self, model: PreTrainedModel, anatomy: Anatomy, sites: Sequence[WeightSite]) -> None:
        self.sites: dict[nn.Module, list[WeightSite]] = defaultdict(list)
        for site in sites:
            self.sites[anatomy.tapped_module(model, site)].append(site)
        self.calls: dict[nn.Module, list[Call]] = defaultdict(list)
        """Of each module, in their order; whoever keeps a tap on for many batches clears it."""

    def __enter__(self) -> "Tap":
        self._handles = [module.register_forward_hook(self._keep) for module in self.sites]
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    @property
    def only(self) -> dict[nn.Module, Call]:
        """The one call of each module.

        Raises:
            AnatomyError: a module was not called, and the block must read its weight otherwise; or it was called several times.
        """
        for module, sites in self.sites.items():
            count = len(self.calls[module])
            if count != 1:
                how = "never calls" if not count else f"calls {count} times"
                raise AnatomyError(
                    f"{sites[0]}: the block {how} the {type(module).__name__} that holds it, so what goes in and out cannot "
                    "be seen; describe it with called: false."
                )
        return {module: calls[0] for module, calls in self.calls.items()}

    def _keep(self, module: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> None:
        self.calls[module].append(Call(arguments[0].detach(), output))
