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
        outputs = [call.output for calls in tap.calls.values() for call in calls]
        gradients = iter(torch.autograd.grad(loss, outputs))
        for module, calls in tap.calls.items():
            counted = real.to(calls[0].inputs.device)
            at_outputs = [by_sequence(next(gradients), ids)[counted].float() / scale_of(model) for _ in calls]
            read = [by_sequence(call.inputs, ids)[counted] for call in calls]
            rows = counted.nonzero()[:, 0].repeat(
                len(calls)
            )  # of all calls together, for an example's effects are one sum
            for site in tap.sites[module]:
                changes = -anatomy.inputs_in(torch.cat(read), site)
                made = anatomy.outputs_in(torch.cat(at_outputs), site)
                accumulators[site].add(token_effects(decompositions(site), changes, made), rows)
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
