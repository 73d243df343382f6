"""Look at what goes into and comes out of the modules that hold some matrices."""

from collections import defaultdict
from collections.abc import Sequence

from torch import Tensor, nn
from transformers import PreTrainedModel

from strop.anatomy.anatomy import Anatomy
from strop.anatomy.sites import WeightSite


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
        """(batch, tokens, in), detached."""
        self.outputs: dict[nn.Module, Tensor] = {}
        """(batch, tokens, features)."""

    def __enter__(self) -> "Tap":
        self._handles = [module.register_forward_hook(self._keep) for module in self.sites]
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _keep(self, module: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> None:
        self.inputs[module] = arguments[0].detach()
        self.outputs[module] = output
