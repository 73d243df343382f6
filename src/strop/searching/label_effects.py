"""The effect of every component of every matrix on what a classifier says, from whole passes forwards and backwards."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from strop.anatomy import Tap, WeightSite, by_sequence, evaluating, frozen, tokens_entering
from strop.errors import UsageError
from strop.linalg import EffectAccumulator, SingularValueDecomposition, token_effects
from strop.progress import SILENT, Progress
from strop.scoring import ClassScorer
from strop.scoring.class_scorer import losses
from strop.searching.averages import mean_inputs
from strop.searching.effect_plan import EffectPlan
from strop.searching.effects import Effects, refuse_lone_examples, scale_of
from strop.searching.stand_in import StandIn


def measure_label_effects(
    scorer: ClassScorer,
    sites: Sequence[WeightSite],
    *,
    decompositions: Callable[[WeightSite], SingularValueDecomposition],
    plan: EffectPlan | None = None,
    drawn_by: torch.Generator | None = None,
    stage: str = "asking the gradient",
    progress: Progress = SILENT,
) -> dict[WeightSite, Effects]:
    """Return for each matrix what removing each of its components does to a classifier's mean loss, to first order.

    e_ni = Σ_t σ_i (Δx_t · v_i)(∇y_t · u_i) over the tokens t of text n, or the patches t of image n, as `measure_effects` says
    of a language model. The loss is −log p of the label, or the squared error of the number. A classifier reads to and fro, so
    all blocks of a batch are run at once.

    Args:
        scorer: the examples, with their labels.
        sites: whole matrices, or single heads.
        decompositions: what to project on.
        plan: counterfactual and reduction; by default Δx = −x, the plain gradient of the singular values.
        drawn_by: draws labels from what the model itself says of each example, in the place of those it has; for a number
            from a normal distribution around what it says, of variance ½, whose −log p is the squared error.
        stage: what to call it in the progress.
        progress: told of each batch.

    Returns:
        For each site its components' effects, (rank,) float64.

    Raises:
        UsageError: the plan wants what only language models have, or `roll` has one example only to swap with.
    """
    plan = plan or EffectPlan()
    refuse_what_labels_lack(plan)
    if plan.counterfactual == "roll":
        refuse_lone_examples(scorer)
    progress.start(stage, len(scorer.batches))
    accumulators = {site: EffectAccumulator(plan.reduction) for site in sites}
    model, anatomy = scorer.model, scorer.anatomy
    swap = StandIn(plan, mean_inputs(scorer, sites) if plan.counterfactual == "mean" else {}, None)
    for batch in scorer.batches:
        with evaluating(model), frozen(model), torch.enable_grad(), tokens_entering(model, anatomy):
            with Tap(model, anatomy, sites) as tap:
                logits = batch.run(model)
            targets = batch.targets.to(logits.device)
            if drawn_by is not None:
                targets = _drawn(logits.detach(), drawn_by, classes=bool(scorer.labels.names))
            loss = losses(logits, targets).sum() * scale_of(model)
        outputs = [call.output for calls in tap.calls.values() for call in calls]
        gradients = iter(torch.autograd.grad(loss, outputs))
        for module, calls in tap.calls.items():
            counted = swap.counted(batch.real).to(calls[0].inputs.device)
            at_outputs = [by_sequence(next(gradients), counted)[counted].float() / scale_of(model) for _ in calls]
            read = [by_sequence(call.inputs, counted) for call in calls]
            rows = counted.nonzero()[:, 0].repeat(
                len(calls)
            )  # of all calls together, for an example's effects are one sum
            for site in tap.sites[module]:
                changes = [swap.change(site, anatomy.inputs_in(own, site), None)[counted] for own in read]
                made = anatomy.outputs_in(torch.cat(at_outputs), site)
                accumulators[site].add(token_effects(decompositions(site), torch.cat(changes), made), rows)
        progress.advance()
    over = scorer.example_count if plan.reduction == "sum" else 1
    return {
        site: Effects(own.loss_change / scorer.example_count, own.score / over) for site, own in accumulators.items()
    }


def refuse_what_labels_lack(plan: EffectPlan) -> None:
    """Raise UsageError if a plan wants what a classifier's examples do not have."""
    if plan.counterfactual == "pairs":
        raise UsageError(
            "The counterfactual 'pairs' swaps prompts of a language model, and a classifier's examples have none; take zero, "
            "mean or roll (--counterfactual mean)."
        )
    if plan.steps > 1:
        raise UsageError("A classifier is always run whole, and steps above 1 (--steps) begin at embeddings; take 1.")


def _drawn(logits: Tensor, generator: torch.Generator, *, classes: bool) -> Tensor:
    """Return a label, or a number, of each example, drawn from what the model says of it: (examples,)."""
    said = logits.cpu()
    if classes:
        return torch.multinomial(said.softmax(-1), 1, generator=generator)[:, 0].to(logits.device)
    noise = torch.randn(len(said), generator=generator) * math.sqrt(0.5)
    return (said[:, 0] + noise).to(logits.device)
