"""The effect of every component of every matrix on a task's loss, from one walk down the model."""

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from strop.anatomy import Tap, WeightSite, by_sequence, evaluating, frozen, hidden_states_entering, logits_at
from strop.errors import DecompositionError, UsageError
from strop.interventions.interfaces import Decompose
from strop.linalg import EffectAccumulator, SingularValueDecomposition, token_effects
from strop.progress import SILENT, Progress
from strop.scoring import Batch, Resources
from strop.searching.decompositions import decompose_all
from strop.searching.effect_plan import EffectPlan
from strop.searching.sample import Parts, Sample
from strop.searching.stand_in import StandIn
from strop.searching.unseen_inputs import BY_EXAMPLE, asking, effects_of_gradient, refuse_unseen_inputs, rows_alone
from strop.searching.waiting_states import WaitingStates
from strop.searching.whole_walk import WholeWalk


@dataclasses.dataclass(frozen=True, eq=False)
class Effects:
    """Of one matrix's components, in the order of descending singular values."""

    loss_change: Tensor
    """(rank,) float64: change of the mean loss if the component alone is removed, to first order, in nats."""
    score: Tensor
    """(rank,) float64: the effects reduced; the lower, the sooner pruned. `sum` is about the mean loss, `max` and `mean-abs`
    are about what one token does to its example's loss, all in nats; `consistency` has no unit."""


def measure_effects(
    scorer: Sample,
    sites: Sequence[WeightSite],
    *,
    decompose: Decompose,
    plan: EffectPlan | None = None,
    decompositions: Callable[[WeightSite], SingularValueDecomposition] | None = None,
    stage: str = "asking the gradient",
    progress: Progress = SILENT,
) -> dict[WeightSite, Effects]:
    """Return for each matrix what removing each of its components does to the loss, to first order.

    e_ti = σ_i (Δx_t · v_i)(∇y_t · u_i), Δx the counterfactual input less the real one, summed or reduced over tokens
    (eigenpruning: arXiv 2404.03147; with Δx = −x, gradients of singular values as a guide: arXiv 2510.20800). The loss L
    is the mean over examples of the mean −log p of an answer token. With n steps ∇y is averaged over the points
    α = 1/n, 2/n, …, 1 of the way from the counterfactual's embeddings to the real ones (integrated gradients: arXiv
    1703.01365). The backward pass goes block by block: a block's forward is repeated from the hidden state that enters
    it, its gradients are projected on the singular vectors at once, and only the gradient of that hidden state goes on
    down. So no weight's gradient is ever formed, one block's activations live at a time, and each decomposition is
    needed once. A model whose blocks do not resume is run whole. Hidden states that memory does not hold wait in a temporary file.

    The inputs of an expert's matrix cannot be seen. With Δx = −x its effects need none: e_i = −σ_i u_iᵀ G v_i, G the gradient
    of its part of the parameter, which is formed one block at a time. A token counts only where it is routed; an expert that
    no token reached has effects of 0.

    Args:
        scorer: the sample, scored by `exact`, `first_token` or `perplexity`.
        sites: whole matrices, or single heads.
        decompose: how to come by decompositions.
        plan: counterfactual, reduction and steps; by default the plain gradient of the singular values.
        decompositions: what to project on instead of the matrices' own decompositions as they are now.
        stage: what to call it in the progress.
        progress: told of each batch on its way up and of each block on the way down.

    Returns:
        For each site its components' effects.

    Raises:
        UsageError: `roll` has only one example to swap with, `pairs` no counterfactual prompts, the plan needs inputs that
            cannot be seen, or neither memory nor disk has room for the hidden states.
    """
    plan = plan or EffectPlan()
    _refuse_what_cannot_be_asked(scorer, sites, plan)
    model = scorer.model
    by_layer: dict[int, list[WeightSite]] = defaultdict(list)
    for site in sites:
        by_layer[site.layer].append(site)
    descent = range(max(scorer.anatomy.layer_count - 1, *by_layer), min(by_layer) - 1, -1)
    batches = _batches(scorer, sites, plan)
    progress.start(stage, len(batches) + len(descent))
    accumulators = {site: EffectAccumulator(plan.reduction) for site in sites}
    waiting = WaitingStates(budget_bytes=Resources.of(model).effect_bytes)
    with evaluating(model), frozen(model), waiting:
        counterfactual = StandIn.of(scorer, sites, plan)
        walks: list[_BatchWalk | WholeWalk] = []
        for batch in batches:
            walks.append(_walk_of(batch, scorer, sites, counterfactual, lowest=descent[-1], waiting=waiting))
            progress.advance()
        for layer in descent:
            here = by_layer[layer]
            held = (
                {site: decompositions(site) for site in here}
                if decompositions
                else decompose_all(decompose, {site: scorer.anatomy.read_weight(model, site) for site in here})
            )
            for walk in walks:
                for site, effects, rows in walk.descend(held):
                    accumulators[site].add(effects, rows)
            progress.advance()
    over = scorer.example_count if plan.reduction == "sum" else 1
    return {
        site: Effects(accumulator.loss_change / scorer.example_count, accumulator.score / over)
        for site, accumulator in accumulators.items()
    }


def _refuse_what_cannot_be_asked(scorer: Sample, sites: Sequence[WeightSite], plan: EffectPlan) -> None:
    refuse_unseen_inputs(
        scorer.anatomy, sites, counterfactual=plan.counterfactual, reduction=plan.reduction, steps=plan.steps
    )
    if plan.counterfactual == "roll":
        refuse_lone_examples(scorer)
    if plan.counterfactual == "pairs":
        _refuse_missing_prompts(scorer)
    if plan.steps > 1 and not scorer.anatomy.family.resumes:
        raise UsageError(
            f"A {scorer.anatomy.family.name} model is always run whole, and steps above 1 (--steps) begin at embeddings; take 1."
        )


def _walk_of(
    batch: Batch,
    scorer: Sample,
    sites: Sequence[WeightSite],
    counterfactual: StandIn,
    *,
    lowest: int,
    waiting: WaitingStates,
) -> "_BatchWalk | WholeWalk":
    """Return a batch on its way: block by block where blocks resume, else all at once."""
    if scorer.anatomy.family.resumes:
        return _BatchWalk(scorer, counterfactual, batch, lowest=lowest, waiting=waiting)
    pairs, scale = counterfactual.plan.counterfactual == "pairs", scale_of(scorer.model)
    return WholeWalk(scorer, sites, batch, swap=counterfactual, pairs=pairs, waiting=waiting, scale=scale)


def _batches(scorer: Sample, sites: Sequence[WeightSite], plan: EffectPlan) -> Sequence[Batch]:
    """Return the sample's batches; example by example where a parameter's gradient must not add them up."""
    seen = all(scorer.anatomy.spelling(site).sees_every_token for site in sites)
    if seen or plan.reduction not in BY_EXAMPLE:
        return scorer.batches
    return [alone for batch in scorer.batches for alone in rows_alone(batch)]


def refuse_unknown_effects(effects: Mapping[WeightSite, Effects]) -> None:
    """Raise DecompositionError if no component's effect is a finite number."""
    if not any(torch.isfinite(found.loss_change).any() for found in effects.values()):
        raise DecompositionError(
            "The gradient is not finite for any matrix, so no component's effect can be estimated: load the model in "
            "float32 (--dtype float32), and look for examples on which its loss is infinite."
        )


def refuse_lone_examples(scorer: Parts) -> None:
    """Raise UsageError if a batch holds one example only: swapped with itself it would leave every effect at zero."""
    if any(batch.real.shape[0] < 2 for batch in scorer.batches):
        raise UsageError(
            "The counterfactual 'roll' swaps each example with another of its batch, and a batch holds only one: take "
            "two examples or more, or another counterfactual (--counterfactual mean)."
        )


def _refuse_missing_prompts(scorer: Sample) -> None:
    if any(batch.counterfactual_ids is None for batch in scorer.batches):
        raise UsageError(
            "The counterfactual 'pairs' needs the examples' counterfactual prompts: encode them too, with "
            "Scorer(..., counterfactuals=True), or take another counterfactual."
        )


def scale_of(model: PreTrainedModel) -> float:
    """Return what the loss is multiplied by, lest gradients vanish in float16."""
    return 1024.0 if model.dtype == torch.float16 else 1.0


class _BatchWalk:
    """One batch on its way up the model, for the hidden states, and down again, for the gradients."""

    def __init__(
        self, scorer: Sample, counterfactual: StandIn, batch: Batch, *, lowest: int, waiting: WaitingStates
    ) -> None:
        self._model, self._anatomy = scorer.model, scorer.anatomy
        self._counterfactual, self._batch, self._lowest = counterfactual, batch, lowest
        self._waiting = waiting
        with torch.no_grad(), batch.with_prompts_known():
            self._entering = [self._climb(batch.input_ids, start) for start in self._path()]
            given = batch.counterfactual_ids if counterfactual.plan.counterfactual == "pairs" else None
            self._given = self._climb(given, None)[:-1] if given is not None else None
        tops = [states.pop()() for states in self._entering]
        self._gradients = [waiting.keep(_gradient_at_the_top(scorer, batch, top)) for top in tops]

    def descend(
        self, held: Mapping[WeightSite, SingularValueDecomposition]
    ) -> Iterator[tuple[WeightSite, Tensor, Tensor]]:
        """Go down one block; yield each site with the effects of its components, (parts, rank), and the row of each part.

        A part is a token that counts; where tokens cannot be seen it is the batch.
        """
        seen = [site for site in held if self._anatomy.spelling(site).sees_every_token]
        unseen = [site for site in held if site not in seen]
        at_outputs: dict[nn.Module, Tensor] = {}
        for step, states in enumerate(self._entering):
            tap, gradient, at_step, at_parameters = self._through_block(seen, unseen, states, self._gradients[step]())
            self._gradients[step] = self._waiting.keep(gradient)
            for module, gradient in at_step.items():
                share = by_sequence(gradient, self._batch.input_ids).float() / (
                    len(self._entering) * scale_of(self._model)
                )
                at_outputs[module] = at_outputs[module] + share if module in at_outputs else share
        given, taken = self._given_inputs(seen), tap.only
        for module, gradient in at_outputs.items():
            counted = self._counterfactual.counted(self._batch.real).to(gradient.device)
            rows = counted.nonzero()[:, 0]
            for site in tap.sites[module]:  # of the last step, which is the real input
                inputs = self._anatomy.inputs_in(by_sequence(taken[module].inputs, self._batch.input_ids), site)
                other = self._anatomy.inputs_in(given[module], site) if given else None
                changes = self._counterfactual.change(site, inputs, other)
                at_output = self._anatomy.outputs_in(gradient[counted], site)
                yield site, token_effects(held[site], changes[counted], at_output), rows
        for site in unseen:  # of the one step there is
            gradient = self._anatomy.matrix_in(at_parameters[self._anatomy.parameter(self._model, site)], site)
            yield (
                site,
                effects_of_gradient(held[site], gradient.float() / scale_of(self._model)),
                self._batch.real.nonzero()[:1, 0],
            )

    def _through_block(
        self,
        seen: Sequence[WeightSite],
        unseen: Sequence[WeightSite],
        states: list[Callable[[], Tensor]],
        gradient: Tensor,
    ) -> tuple[Tap, Tensor, dict[nn.Module, Tensor], dict[nn.Parameter, Tensor]]:
        layer = self._lowest + len(states) - 1
        state = states.pop()().requires_grad_()
        parameters = list(dict.fromkeys(self._anatomy.parameter(self._model, site) for site in unseen))
        with (
            asking(parameters),
            torch.enable_grad(),
            self._batch.with_prompts_known(),
            Tap(self._model, self._anatomy, seen) as tap,
        ):
            left = self._block(layer, self._batch.input_ids, state)
            outputs = {module: call.output for module, call in tap.only.items()}
            wanted = [state, *outputs.values(), *parameters]
            entering, *found = torch.autograd.grad(left, wanted, gradient, allow_unused=True, materialize_grads=True)
        at_outputs, at_parameters = found[: len(outputs)], found[len(outputs) :]
        return (
            tap,
            entering,
            dict(zip(outputs, at_outputs, strict=True)),
            dict(zip(parameters, at_parameters, strict=True)),
        )

    def _given_inputs(self, sites: Sequence[WeightSite]) -> dict[nn.Module, Tensor]:
        if self._given is None:
            return {}
        assert self._batch.counterfactual_ids is not None
        layer = self._lowest + len(self._given) - 1
        with torch.no_grad(), self._batch.with_prompts_known(), Tap(self._model, self._anatomy, sites) as tap:
            self._block(layer, self._batch.counterfactual_ids, self._given.pop()())
        ids = self._batch.counterfactual_ids
        return {module: by_sequence(call.inputs, ids) for module, call in tap.only.items()}

    def _path(self) -> list[Tensor | None]:
        """Return the embeddings to start from, one for each step, the real ones last."""
        steps = self._counterfactual.plan.steps
        if steps == 1:
            return [None]
        real = self._embeddings(self._batch.input_ids)
        other = self._batch.counterfactual_ids
        start = self._counterfactual.embeddings(
            self._batch, real, self._embeddings(other) if other is not None else None
        )
        return [torch.lerp(start, real, step / steps) for step in range(1, steps + 1)]

    def _embeddings(self, input_ids: Tensor) -> Tensor:
        return hidden_states_entering(self._model, self._anatomy, input_ids, layer=0, beside=self._batch.beside)

    def _climb(self, input_ids: Tensor, embeddings: Tensor | None) -> list[Callable[[], Tensor]]:
        """Return what gives back the states that enter each block from the lowest on, and what leaves the last."""
        state = hidden_states_entering(
            self._model,
            self._anatomy,
            input_ids,
            layer=self._lowest,
            state=embeddings,
            beside=self._batch.beside,
        )
        states = [self._waiting.keep(state)]
        for layer in range(self._lowest, self._anatomy.layer_count):
            state = self._block(layer, input_ids, state)
            states.append(self._waiting.keep(state))
        return states

    def _block(self, layer: int, input_ids: Tensor, state: Tensor) -> Tensor:
        return hidden_states_entering(
            self._model,
            self._anatomy,
            input_ids,
            layer=layer + 1,
            start=layer,
            state=state,
            beside=self._batch.beside,
        )


def _gradient_at_the_top(scorer: Sample, batch: Batch, state: Tensor) -> Tensor:
    """Return the gradient of the batch's scaled loss at what leaves the last block, a few positions at a time."""
    top = scorer.anatomy.layer_count
    state.requires_grad_()
    total = torch.zeros_like(state)
    tokens = torch.bincount(batch.rows, minlength=batch.input_ids.shape[0])
    weights = scale_of(scorer.model) / tokens[batch.rows]
    for part in batch.slices():
        with torch.enable_grad(), batch.with_prompts_known():
            logits = logits_at(
                scorer.model,
                scorer.anatomy,
                batch.input_ids,
                batch.rows[part],
                batch.columns[part],
                start=top,
                state=state,
                beside=batch.beside,
            )
            targets = batch.targets[part].to(logits.device)
            loss = nn.functional.cross_entropy(logits.float(), targets, reduction="none")
            (gradient,) = torch.autograd.grad((loss * weights[part].to(loss.device)).sum(), state)
        total += gradient
    return total
