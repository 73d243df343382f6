"""Look at what goes into and comes out of the modules that hold some matrices."""

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


class Tap:
    """Keep, for the length of a `with` block, the latest inputs and outputs of the modules that hold some sites.

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
        self.inputs: dict[nn.Module, Tensor] = {}
        """(batch, tokens, in), detached; see `by_sequence` for modules that are given a batch's tokens one after another."""
        self.every_input: dict[nn.Module, list[Tensor]] = defaultdict(list)
        """Of each call, where a module is called several times; whoever keeps a tap on for many batches clears it."""
        self.outputs: dict[nn.Module, Tensor] = {}
        """(batch, tokens, features), likewise."""

    def __enter__(self) -> "Tap":
        self._handles = [module.register_forward_hook(self._keep) for module in self.sites]
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def refuse_uncalled(self) -> None:
        """Raise AnatomyError if the block ran and left out a module, whose weight it must read otherwise."""
        for module, sites in self.sites.items():
            if module not in self.outputs:
                raise AnatomyError(
                    f"{sites[0]}: the block never calls the {type(module).__name__} that holds it, so what goes in and out cannot "
                    "be seen; describe it with called: false."
                )

    def _keep(self, module: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> None:
        self.inputs[module] = arguments[0].detach()
        self.every_input[module].append(self.inputs[module])
        self.outputs[module] = output
