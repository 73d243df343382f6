"""Ask the gradient first: the effect of every singular value of every matrix, from one walk down the model."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from strop.anatomy import Anatomy, WeightSite, evaluating, frozen, hidden_states_entering, logits_at
from strop.interventions.base import Decompose
from strop.linalg import SingularValueDecomposition, singular_value_effects
from strop.progress import SILENT, Progress
from strop.tasks import Scorer


def measure_effects(
    scorer: Scorer, sites: Sequence[WeightSite], *, decompose: Decompose, progress: Progress = SILENT
) -> dict[WeightSite, Tensor]:
    """Return for each matrix what each of its singular values contributes to the loss, to first order.

    e_i = σ_i u_iᵀ (∂L/∂W) v_i, L the mean over examples of the mean −log p of an answer token (gradients of singular
    values as a guide: arXiv 2510.20800). The backward pass goes block by block: a block's forward is repeated from the
    hidden state that enters it, its gradients are projected on the singular vectors at once, and only the gradient of
    that hidden state goes on down. So no weight's gradient is ever formed, one block's activations live at a time, and
    each decomposition is needed once.

    Args:
        scorer: the sample, scored by `exact`, `first_token` or `perplexity`.
        sites: whole matrices.
        decompose: how to come by decompositions.
        progress: told of each block, once on the way up and once on the way down.

    Returns:
        For each site (rank,) float64 effects, in nats, in the order of descending singular values.
    """
    model, anatomy = scorer.model, scorer.anatomy
    by_layer: dict[int, list[WeightSite]] = defaultdict(list)
    for site in sites:
        by_layer[site.layer].append(site)
    lowest = min(by_layer)
    effects: dict[WeightSite, Tensor] = {}
    with evaluating(model), frozen(model):
        entering = _states_by_layer(scorer, lowest, progress)
        gradients = _gradients_at_the_top(scorer, entering[anatomy.layer_count])
        for layer in reversed(range(lowest, anatomy.layer_count)):
            decompositions = {site: decompose(anatomy.read_weight(model, site)) for site in by_layer[layer]}
            for index, batch in enumerate(scorer.batches):
                state = entering[layer][index].requires_grad_()
                with torch.enable_grad(), _Tap(model, anatomy, by_layer[layer]) as tap:
                    left = hidden_states_entering(
                        model, anatomy, batch.input_ids, layer=layer + 1, start=layer, state=state
                    )
                asked = [state, *tap.outputs.values()]
                gradients[index], *at_outputs = torch.autograd.grad(left, asked, gradients[index])
                for module, gradient in zip(tap.outputs, at_outputs, strict=True):
                    _add(effects, _effects_of(tap, module, gradient, anatomy, decompositions))
            del entering[layer], decompositions
            progress.advance()
    return {site: effects[site] for site in sites}


def _states_by_layer(scorer: Scorer, lowest: int, progress: Progress) -> dict[int, list[Tensor]]:
    def usable(states: Iterable[Tensor]) -> list[Tensor]:
        return [state.clone() for state in states]  # tensors made in inference mode cannot take part in a backward pass

    entering = {lowest: usable(scorer.states_entering(lowest))}
    for layer in range(lowest, scorer.anatomy.layer_count):
        entering[layer + 1] = usable(scorer.states_entering(layer + 1, start=layer, states=entering[layer]))
        progress.advance()
    return entering


def _gradients_at_the_top(scorer: Scorer, states: Sequence[Tensor]) -> list[Tensor]:
    top = scorer.anatomy.layer_count
    found = []
    for batch, state in zip(scorer.batches, states, strict=True):
        state.requires_grad_()
        with torch.enable_grad():
            logits = logits_at(
                scorer.model, scorer.anatomy, batch.input_ids, batch.rows, batch.columns, start=top, state=state
            )
            loss = nn.functional.cross_entropy(logits.float(), batch.targets.to(logits.device), reduction="none")
            tokens = torch.bincount(batch.rows, minlength=batch.input_ids.shape[0])
            weights = (1 / tokens[batch.rows] / scorer.example_count).to(loss.device)
            (gradient,) = torch.autograd.grad((loss * weights).sum(), state)
        found.append(gradient)
    return found


class _Tap:
    """Keep, for the length of a `with` block, the inputs and outputs of the modules that hold some sites."""

    def __init__(self, model: PreTrainedModel, anatomy: Anatomy, sites: Sequence[WeightSite]) -> None:
        self.sites: dict[nn.Module, list[WeightSite]] = defaultdict(list)
        for site in sites:
            self.sites[anatomy.module(model, site)].append(site)
        self.inputs: dict[nn.Module, Tensor] = {}
        self.outputs: dict[nn.Module, Tensor] = {}

    def __enter__(self) -> "_Tap":
        self._handles = [module.register_forward_hook(self._keep) for module in self.sites]
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _keep(self, module: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> None:
        self.inputs[module] = arguments[0].detach()
        self.outputs[module] = output


def _effects_of(
    tap: _Tap,
    module: nn.Module,
    gradient: Tensor,
    anatomy: Anatomy,
    decompositions: Mapping[WeightSite, SingularValueDecomposition],
) -> dict[WeightSite, Tensor]:
    return {
        site: singular_value_effects(
            decompositions[site],
            anatomy.inputs_in(tap.inputs[module], site).flatten(0, -2),
            anatomy.outputs_in(gradient, site).flatten(0, -2),
        )
        for site in tap.sites[module]
    }


def _add(total: dict[WeightSite, Tensor], more: Mapping[WeightSite, Tensor]) -> None:
    for site, effects in more.items():
        total[site] = total[site] + effects if site in total else effects
