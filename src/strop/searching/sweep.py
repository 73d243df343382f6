"""Score many single edits on the same examples, going up the layers and reusing the prefix."""

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence

from torch import Tensor

from strop.interventions import WeightIntervention, applied_interventions
from strop.interventions.base import Decompose
from strop.linalg import SingularValueDecomposition
from strop.progress import SILENT, Progress
from strop.scoring import Evaluation, Scorer


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
    in_order = sorted(candidates, key=lambda entry: entry.site)
    for site, at_site in itertools.groupby(in_order, key=lambda entry: entry.site):
        if site.layer > reached:
            states = scorer.states_entering(site.layer, start=reached, states=states)
            reached = site.layer
        with _decomposed_once(decompose) as held:
            for candidate in at_site:
                with applied_interventions(scorer.model, [candidate], anatomy=scorer.anatomy, decompose=held):
                    evaluation = scorer.evaluate(start=reached, states=states)
                report(candidate, evaluation)
                progress.advance()


@contextlib.contextmanager
def _decomposed_once(decompose: Decompose) -> Iterator[Decompose]:
    """Yield a `decompose` for candidates of one matrix: the first call decomposes, the others are given the same."""
    held: list[SingularValueDecomposition] = []

    def first_time_only(matrix: Tensor) -> SingularValueDecomposition:
        if not held:
            held.append(decompose(matrix))
        return held[0]

    yield first_time_only
    held.clear()
