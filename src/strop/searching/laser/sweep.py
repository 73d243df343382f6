"""Score many single edits on the same examples, going up the layers and reusing the prefix."""

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from strop.interventions import WeightIntervention, applied_interventions
from strop.interventions.interfaces import Decompose
from strop.linalg import SingularValueDecomposition
from strop.scoring import ClassScorer, Evaluation, Scorer

W = TypeVar("W", bound=WeightIntervention)


def sweep(
    scorer: Scorer | ClassScorer, candidates: Sequence[W], *, decompose: Decompose
) -> Iterator[tuple[W, Callable[[], Evaluation]]]:
    """Yield each candidate with what scores it alone on the model as it stands, in the order of layers.

    An edit in layer ℓ leaves the activations below it as they were, so the hidden states that enter each candidate's
    layer are computed once for all its candidates, going up, and only blocks ℓ and above run for each. What scores a
    candidate may be called until the next one is asked for; the model is edited only while it runs. Where blocks do not resume,
    each candidate is scored on the whole model.

    Args:
        scorer: the examples, on the model as it stands.
        candidates: each is applied, scored and taken off.
        decompose: how to come by decompositions.
    """
    states: list[Tensor] | None = None
    reached = 0
    in_order = sorted(candidates, key=lambda entry: entry.site)
    for site, at_site in itertools.groupby(in_order, key=lambda entry: entry.site):
        if site.layer > reached and isinstance(scorer, Scorer) and scorer.anatomy.family.resumes:
            states = scorer.states_entering(site.layer, start=reached, states=states)
            reached = site.layer
        with _decomposed_once(decompose) as held:
            for candidate in at_site:
                yield candidate, _scoring(scorer, candidate, held, reached, states)


def _scoring(
    scorer: Scorer | ClassScorer,
    candidate: WeightIntervention,
    decompose: Decompose,
    start: int,
    states: list[Tensor] | None,
) -> Callable[[], Evaluation]:
    def score() -> Evaluation:
        with applied_interventions(scorer.model, [candidate], anatomy=scorer.anatomy, decompose=decompose):
            return scorer.evaluate(start=start, states=states)

    return score


@contextlib.contextmanager
def _decomposed_once(decompose: Decompose) -> Iterator[Decompose]:
    """Yield a `decompose` for candidates of one matrix: what is asked again, the matrix or a block of it, is given the same."""
    held: list[tuple[Tensor, SingularValueDecomposition]] = []

    def first_time_only(matrix: Tensor) -> SingularValueDecomposition:
        for known, found in held:
            if known.shape == matrix.shape and torch.equal(known, matrix):
                return found
        held.append((matrix.clone(), decompose(matrix)))
        return held[-1][1]

    yield first_time_only
    held.clear()
