"""Score many single edits on the same examples, going up the layers and reusing the prefix."""

from collections.abc import Callable, Sequence

from torch import Tensor

from strop.interventions import WeightIntervention, applied_interventions
from strop.interventions.base import Decompose
from strop.progress import SILENT, Progress
from strop.tasks import Evaluation, Scorer


def sweep(
    scorer: Scorer,
    candidates: Sequence[WeightIntervention],
    *,
    decompose: Decompose,
    report: Callable[[WeightIntervention, Evaluation], None],
    progress: Progress = SILENT,
) -> None:
    """Score each candidate alone on the model as it stands; report each as soon as it is known.

    An edit in layer ℓ leaves the activations below it as they were, so the hidden states that enter each candidate's
    layer are computed once for all its candidates, going up, and only blocks ℓ and above run for each.

    Args:
        scorer: the examples, on the model as it stands.
        candidates: each is applied, scored and taken off.
        decompose: how to come by decompositions.
        report: called with each candidate and its evaluation, in order of layers.
        progress: told of each candidate.
    """
    states: list[Tensor] | None = None
    reached = 0
    for candidate in sorted(candidates, key=lambda entry: entry.site.layer):
        layer = candidate.site.layer
        if layer > reached:
            states = scorer.states_entering(layer, start=reached, states=states)
            reached = layer
        with applied_interventions(scorer.model, [candidate], anatomy=scorer.anatomy, decompose=decompose):
            evaluation = scorer.evaluate(start=reached, states=states)
        report(candidate, evaluation)
        progress.advance()
