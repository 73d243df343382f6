"""What stands in for the real inputs of a matrix, where a component is asked what it changes."""

import dataclasses
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from strop.anatomy import WeightSite, hidden_states_entering
from strop.scoring import Batch
from strop.searching.averages import mean_inputs
from strop.searching.effect_plan import EffectPlan
from strop.searching.sample import Sample


@dataclasses.dataclass(frozen=True, eq=False)
class StandIn:
    """What stands in for real inputs: at the matrices, and at the embeddings where the gradient is averaged on a path."""

    plan: EffectPlan
    mean_inputs: Mapping[WeightSite, Tensor]
    mean_embedding: Tensor | None

    @classmethod
    def of(cls, scorer: Sample, sites: Sequence[WeightSite], plan: EffectPlan) -> "StandIn":
        """Return what a plan wants, measured on the sample where it is a mean."""
        if plan.counterfactual != "mean":
            return cls(plan, {}, None)
        embedding = _mean_embedding(scorer) if plan.steps > 1 else None
        return cls(plan, mean_inputs(scorer, sites), embedding)

    def counted(self, real: Tensor) -> Tensor:
        """Return which tokens count, (sequences, tokens): real ones, with a real one to swap with."""
        return real & real.roll(1, 0) if self.plan.counterfactual == "roll" else real

    def change(self, site: WeightSite, inputs: Tensor, given: Tensor | None) -> Tensor:
        """Return Δx of inputs (sequences, tokens, in), where `given` are the inputs under the counterfactual prompts."""
        match self.plan.counterfactual:
            case "zero":
                return -inputs
            case "mean":
                return self.mean_inputs[site].to(inputs.device, inputs.dtype) - inputs
            case "roll":
                return inputs.roll(1, 0) - inputs
            case "pairs":
                assert given is not None
                return given - inputs

    def embeddings(self, batch: Batch, real: Tensor, given: Tensor | None) -> Tensor:
        """Return what the path to the real embeddings (sequences, tokens, hidden) sets out from."""
        match self.plan.counterfactual:
            case "zero":
                return torch.zeros_like(real)
            case "mean":
                assert self.mean_embedding is not None
                return self.mean_embedding.to(real.device, real.dtype).expand_as(real)
            case "roll":
                return real.where(~self.counted(batch.real).to(real.device)[..., None], real.roll(1, 0))
            case "pairs":
                assert given is not None
                return given


def _mean_embedding(scorer: Sample) -> Tensor:
    total, count = torch.zeros(()), 0
    with torch.no_grad():
        for batch in scorer.batches:
            with batch.with_prompts_known():
                found = hidden_states_entering(
                    scorer.model, scorer.anatomy, batch.input_ids, layer=0, beside=batch.beside
                )
            real = batch.real.to(found.device)
            total = total.to(found.device) + found[real].float().sum(0)
            count += int(real.sum())
    return total / count
