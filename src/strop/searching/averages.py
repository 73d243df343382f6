"""What a matrix sees on average over a sample."""

from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from strop.anatomy import Tap, WeightSite, by_sequence, evaluating
from strop.errors import UsageError
from strop.searching.sample import Parts


@torch.inference_mode()
def mean_inputs(
    scorer: Parts, sites: Sequence[WeightSite], *, at_each_position: bool = False
) -> dict[WeightSite, Tensor]:
    """Return the mean input of each site's matrix over all tokens of a sample, padding not counted.

    μ = (1/T) Σ_t x_t; at each position, μ_p is the mean over the examples of the input at position p.

    Args:
        scorer: the sample.
        sites: whole matrices, or single heads.
        at_each_position: one mean for each position; all examples must then be of one length.

    Returns:
        For each site (in,), or (positions, in), float32.

    Raises:
        UsageError: means at each position are wanted of examples that differ in length.
    """
    if at_each_position:
        refuse_mixed_lengths(scorer)
    model, anatomy = scorer.model, scorer.anatomy
    totals: dict[nn.Module, Tensor] = {}
    counts: dict[nn.Module, int] = defaultdict(int)
    with evaluating(model), Tap(model, anatomy, sites) as tap:
        for batch in scorer.batches:
            batch.read_by(model)
            for module, calls in tap.calls.items():
                real = batch.real_at(tap.sites[module][0])
                for call in calls:
                    counts[module] += real.shape[0] if at_each_position else int(real.sum())
                    counted = by_sequence(call.inputs, real).float() * real.to(call.inputs.device)[..., None]
                    more = counted.sum(0) if at_each_position else counted.sum((0, 1))
                    totals[module] = totals[module] + more if module in totals else more
            tap.calls.clear()
    return {
        site: anatomy.inputs_in(totals[module] / counts[module], site)
        for module, at_module in tap.sites.items()
        for site in at_module
    }


def refuse_mixed_lengths(*samples: Parts) -> None:
    """Raise UsageError if examples differ in length, so that positions have no common meaning."""
    lengths = {int(length) for sample in samples for batch in sample.batches for length in batch.real.sum(1)}
    if len(lengths) > 1:
        raise UsageError(
            f"A bias at each position needs examples of one length, and these have {min(lengths)} to {max(lengths)} "
            "tokens: take bias 'mean' (--bias mean)."
        )
