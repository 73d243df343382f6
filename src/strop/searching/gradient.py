"""Ask the gradient first: the effect of every singular value of every matrix, from one walk down the model."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from strop.anatomy import Anatomy, WeightSite, evaluating, frozen, hidden_states_entering, logits_at
from strop.interventions.base import Decompose
from strop.linalg import SingularValueDecomposition, singular_value_effects
from strop.progress import SILENT, Progress
from strop.tasks import Batch, Scorer

STATE_BUDGET_BYTES = 256 * 2**20
"""Most that the sample's hidden states at all layers may take; a larger sample is walked in parts."""


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
    model = scorer.model
    total: dict[WeightSite, Tensor] = {}
    chunks = _chunks(scorer, STATE_BUDGET_BYTES)
    with evaluating(model), frozen(model):
        for chunk in chunks:
            _add(total, _walk_down(scorer, chunk, sites, decompose, progress if chunk is chunks[0] else SILENT))
    scale = _scale_of(model) * scorer.example_count
    return {site: total[site] / scale for site in sites}


def _chunks(scorer: Scorer, budget_bytes: int) -> list[list[Batch]]:
    """Group batches so that the hidden states of one group, at all layers, stay within a budget."""
    chunks: list[list[Batch]] = []
    held_bytes = 0
    for batch in scorer.batches:
        size = scorer.state_bytes_of(batch) * (scorer.anatomy.layer_count + 1)
        if not chunks or held_bytes + size > budget_bytes:
            chunks.append([])
            held_bytes = 0
        chunks[-1].append(batch)
        held_bytes += size
    return chunks


def _scale_of(model: PreTrainedModel) -> float:
    """Return what the loss is multiplied by, lest gradients vanish in float16."""
    return 1024.0 if model.dtype == torch.float16 else 1.0


def _walk_down(
    scorer: Scorer, batches: Sequence[Batch], sites: Sequence[WeightSite], decompose: Decompose, progress: Progress
) -> dict[WeightSite, Tensor]:
    """Return the effects on the sum over the batches' examples of their scaled losses."""
    model, anatomy = scorer.model, scorer.anatomy
    by_layer: dict[int, list[WeightSite]] = defaultdict(list)
    for site in sites:
        by_layer[site.layer].append(site)
    lowest, top = min(by_layer), anatomy.layer_count
    effects: dict[WeightSite, Tensor] = {}
    entering = _states_by_layer(scorer, batches, lowest, progress)
    gradients = [
        _gradient_at_the_top(scorer, batch, state) for batch, state in zip(batches, entering.pop(top), strict=True)
    ]
    for layer in reversed(range(lowest, top)):
        decompositions = {site: decompose(anatomy.read_weight(model, site)) for site in by_layer[layer]}
        for index, (batch, state) in enumerate(zip(batches, entering.pop(layer), strict=True)):
            state.requires_grad_()
            with torch.enable_grad(), _Tap(model, anatomy, by_layer[layer]) as tap:
                left = hidden_states_entering(
                    model, anatomy, batch.input_ids, layer=layer + 1, start=layer, state=state
                )
            asked = [state, *tap.outputs.values()]
            gradients[index], *at_outputs = torch.autograd.grad(left, asked, gradients[index])
            for module, gradient in zip(tap.outputs, at_outputs, strict=True):
                _add(effects, _effects_of(tap, module, gradient, anatomy, decompositions))
        progress.advance()
    return effects


def _states_by_layer(
    scorer: Scorer, batches: Sequence[Batch], lowest: int, progress: Progress
) -> dict[int, list[Tensor]]:
    model, anatomy = scorer.model, scorer.anatomy
    entering: dict[int, list[Tensor]] = {}
    with torch.no_grad():
        for layer in range(lowest, anatomy.layer_count + 1):
            below = entering.get(layer - 1)
            entering[layer] = [
                hidden_states_entering(
                    model,
                    anatomy,
                    batch.input_ids,
                    layer=layer,
                    start=layer - 1 if below is not None else 0,
                    state=below[index] if below is not None else None,
                )
                for index, batch in enumerate(batches)
            ]
            if below is not None:
                progress.advance()
    return entering


def _gradient_at_the_top(scorer: Scorer, batch: Batch, state: Tensor) -> Tensor:
    """Return the gradient of the batch's scaled loss at what leaves the last block, a few positions at a time."""
    top = scorer.anatomy.layer_count
    state.requires_grad_()
    total = torch.zeros_like(state)
    tokens = torch.bincount(batch.rows, minlength=batch.input_ids.shape[0])
    weights = _scale_of(scorer.model) / tokens[batch.rows]
    for part in batch.slices():
        with torch.enable_grad():
            logits = logits_at(
                scorer.model,
                scorer.anatomy,
                batch.input_ids,
                batch.rows[part],
                batch.columns[part],
                start=top,
                state=state,
            )
            targets = batch.targets[part].to(logits.device)
            loss = nn.functional.cross_entropy(logits.float(), targets, reduction="none")
            (gradient,) = torch.autograd.grad((loss * weights[part].to(loss.device)).sum(), state)
        total += gradient
    return total


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
