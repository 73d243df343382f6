"""One batch through a whole model, forward and back: for models whose blocks cannot be run one by one."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from strop.anatomy import WeightSite, by_sequence, logits_at
from strop.linalg import SingularValueDecomposition, token_effects
from strop.scoring import Batch
from strop.searching.sample import Sample
from strop.searching.waiting_states import WaitingStates

SiteEffects = tuple[WeightSite, Tensor, Tensor]
"""A site, the effects of its components, (parts, rank), and (parts,) the row each part is of."""


class Swap(Protocol):
    """What stands in for real inputs."""

    def counted(self, real: Tensor) -> Tensor:
        """Return which tokens count, of those that are real, (sequences, tokens)."""
        ...

    def change(self, site: WeightSite, inputs: Tensor, given: Tensor | None) -> Tensor:
        """Return Δx of inputs (sequences, tokens, in), where `given` are the inputs under the counterfactual prompts."""
        ...


class WholeWalk:
    """What some matrices see of a batch, and the gradient at what they make of it, from one pass of the whole model.

    A module that is called several times, as a block that ALBERT repeats, is seen at each call.

    Args:
        scorer: the sample.
        sites: in modules of their own or packed with others.
        batch: one of the sample's.
        swap: what stands in for real inputs.
        pairs: read the counterfactual prompts too.
        waiting: keeps what is seen until it is asked for.
        scale: what the loss is multiplied by.
    """

    def __init__(
        self,
        scorer: Sample,
        sites: Sequence[WeightSite],
        batch: Batch,
        *,
        swap: Swap,
        pairs: bool,
        waiting: WaitingStates,
        scale: float,
    ) -> None:
        self._model, self._anatomy, self._batch, self._swap = scorer.model, scorer.anatomy, batch, swap
        self._scale = scale
        modules = list(dict.fromkeys(self._anatomy.tapped_module(self._model, site) for site in sites))
        with torch.enable_grad():
            seen = self._seen(modules, batch.input_ids)
        outputs = [output for module in modules for _, output in seen[module]]
        gradients = iter(torch.autograd.grad(self._loss, outputs, allow_unused=True))
        self._waiting: dict[nn.Module, list[tuple[Callable[[], Tensor], Callable[[], Tensor]]]] = defaultdict(list)
        for module in modules:
            for inputs, output in seen[module]:
                gradient = next(gradients)
                found = torch.zeros_like(output) if gradient is None else gradient
                self._waiting[module].append((waiting.keep(inputs), waiting.keep(found)))
        del self._loss
        self._given: dict[nn.Module, list[Tensor]] = {}
        if pairs and batch.counterfactual_ids is not None:
            with torch.no_grad():
                other = self._seen(modules, batch.counterfactual_ids)
            self._given = {module: [inputs for inputs, _ in calls] for module, calls in other.items()}

    def descend(self, held: Mapping[WeightSite, SingularValueDecomposition]) -> Iterator[SiteEffects]:
        """Yield each site with the effects of its components at the tokens that count; each module is asked about once."""
        of_module: dict[nn.Module, list[WeightSite]] = defaultdict(list)
        for site in held:
            of_module[self._anatomy.tapped_module(self._model, site)].append(site)
        for module, own in of_module.items():
            effects: dict[WeightSite, list[Tensor]] = {site: [] for site in own}
            rows: list[Tensor] = []
            for call, (take_inputs, take_gradient) in enumerate(self._waiting.pop(module)):
                real = self._batch.real_at(own[0])
                inputs, gradient = by_sequence(take_inputs(), real), by_sequence(take_gradient(), real).float()
                counted = self._swap.counted(real).to(gradient.device)
                given = by_sequence(self._given[module][call], real) if module in self._given else None
                rows.append(counted.nonzero()[:, 0])
                for site in own:
                    other = self._anatomy.inputs_in(given, site) if given is not None else None
                    changes = self._swap.change(site, self._anatomy.inputs_in(inputs, site), other)
                    at_outputs = self._anatomy.outputs_in(gradient[counted] / self._scale, site)
                    effects[site].append(token_effects(held[site], changes[counted], at_outputs))
            for site in own:  # all calls together, for an example's effects are one sum
                yield site, torch.cat(effects[site]), torch.cat(rows)

    def _seen(self, modules: Sequence[nn.Module], input_ids: Tensor) -> dict[nn.Module, list[tuple[Tensor, Tensor]]]:
        """Return the inputs and outputs of each call of some modules, and keep the batch's scaled loss."""
        seen: dict[nn.Module, list[tuple[Tensor, Tensor]]] = defaultdict(list)
        one = torch.ones((), device=input_ids.device, requires_grad=torch.is_grad_enabled())

        def keep(module: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> Tensor:
            asking = output * one.to(output)  # the lowest outputs depend on nothing else that asks for a gradient
            seen[module].append((arguments[0].detach(), asking))
            return asking

        handles = [module.register_forward_hook(keep) for module in modules]
        try:
            with self._batch.with_prompts_known():
                self._loss = self._scaled_loss(input_ids)
        finally:
            for handle in handles:
                handle.remove()
        return seen

    def _scaled_loss(self, input_ids: Tensor) -> Tensor:
        batch = self._batch
        logits = logits_at(self._model, self._anatomy, input_ids, batch.rows, batch.columns, beside=batch.beside)
        targets = batch.targets.to(logits.device)
        loss = nn.functional.cross_entropy(logits.float(), targets, reduction="none")
        tokens = torch.bincount(batch.rows, minlength=batch.input_ids.shape[0])
        return (loss * (self._scale / tokens[batch.rows]).to(loss.device)).sum()
