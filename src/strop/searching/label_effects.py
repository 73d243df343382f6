"""The effect of every component of every matrix on what a classifier says, from whole passes forwards and backwards."""

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from strop.anatomy import Tap, WeightSite, by_sequence, evaluating, frozen, input_device
from strop.linalg import EffectAccumulator, SingularValueDecomposition, token_effects
from strop.progress import SILENT, Progress
from strop.scoring import ClassScorer
from strop.scoring.class_scorer import losses
from strop.searching.effects import Effects, scale_of


def measure_label_effects(
    scorer: ClassScorer,
    sites: Sequence[WeightSite],
    *,
    decompositions: Callable[[WeightSite], SingularValueDecomposition],
    drawn_by: torch.Generator | None = None,
    stage: str = "asking the gradient",
    progress: Progress = SILENT,
) -> dict[WeightSite, Effects]:
    """Return for each matrix what removing each of its components does to a classifier's mean loss, to first order.

    e_ni = Σ_t σ_i (−x_t · v_i)(∇y_t · u_i) over the tokens t of text n, as `measure_effects` says of a language model. The
    loss is −log p of the label, or the squared error of the number. A classifier reads to and fro, so all blocks of a batch
    are run at once.

    Args:
        scorer: the texts, with their labels.
        sites: whole matrices.
        decompositions: what to project on.
        drawn_by: draws labels from what the model itself says of each text, in the place of those it has; for a number from
            a normal distribution around what it says, of variance ½, whose −log p is the squared error.
        stage: what to call it in the progress.
        progress: told of each batch.

    Returns:
        For each site its components' effects, (rank,) float64; the score is the mean over texts of e_ni².
    """
    progress.start(stage, len(scorer.batches))
    accumulators = {site: EffectAccumulator("squares") for site in sites}
    model, anatomy, device = scorer.model, scorer.anatomy, input_device(scorer.model)
    for batch in scorer.batches:
        inputs = {name: tensor.to(device) for name, tensor in batch.inputs.items()}
        ids, real = inputs["input_ids"], inputs["attention_mask"].bool()
        with evaluating(model), frozen(model), torch.enable_grad(), _asking(model), Tap(model, anatomy, sites) as tap:
            logits = model(**inputs).logits.float()
            targets = batch.targets.to(logits.device)
            if drawn_by is not None:
                targets = _drawn(logits.detach(), drawn_by, classes=bool(scorer.labels.names))
            loss = losses(logits, targets).sum() * scale_of(model)
        gradients = torch.autograd.grad(loss, list(tap.outputs.values()))
        for module, gradient in zip(tap.outputs, gradients, strict=True):
            counted = real.to(gradient.device)
            at_outputs = by_sequence(gradient, ids).float() / scale_of(model)
            for site in tap.sites[module]:
                read = anatomy.inputs_in(by_sequence(tap.inputs[module], ids), site)[counted]
                made = anatomy.outputs_in(at_outputs[counted], site)
                accumulators[site].add(token_effects(decompositions(site), -read, made), counted.nonzero()[:, 0])
        progress.advance()
    return {site: Effects(own.loss_change / scorer.example_count, own.score) for site, own in accumulators.items()}


def _drawn(logits: Tensor, generator: torch.Generator, *, classes: bool) -> Tensor:
    """Return a label, or a number, of each text, drawn from what the model says of it: (texts,)."""
    said = logits.cpu()
    if classes:
        return torch.multinomial(said.softmax(-1), 1, generator=generator)[:, 0].to(logits.device)
    noise = torch.randn(len(said), generator=generator) * math.sqrt(0.5)
    return (said[:, 0] + noise).to(logits.device)


@contextlib.contextmanager
def _asking(model: PreTrainedModel) -> Iterator[None]:
    """Let gradients reach all blocks of a frozen model: its embeddings ask for one."""

    def ask(module: torch.nn.Module, arguments: object, output: Tensor) -> Tensor:
        return output.requires_grad_().clone()

    handle = model.get_input_embeddings().register_forward_hook(ask)
    try:
        yield
    finally:
        handle.remove()
