"""Score many single edits on the same examples, going up the layers and reusing the prefix."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from strop.anatomy import WeightSite
from strop.interventions import WeightIntervention, applied_interventions
from strop.interventions.interfaces import Decompose
from strop.linalg import SingularValueDecomposition
from strop.scoring import ClassScorer, Evaluation, Scorer

W = TypeVar("W", bound=WeightIntervention)


def sweep(
    scorer: Scorer | ClassScorer, candidates: Iterable[W], *, decompose: Decompose
) -> Iterator[tuple[W, Callable[[], Evaluation]]]:
    """Yield each candidate with what scores it alone on the model as it stands, in the order of layers.

    An edit in layer ℓ leaves the activations below it as they were, so the hidden states that enter each candidate's
    layer are computed once for all its candidates, going up, and only blocks ℓ and above run for each. What scores a
    candidate may be called until the next one is asked for; the model is edited only while it runs. Where blocks do not resume,
    each candidate is scored on the whole model.

    Args:
        scorer: the examples, on the model as it stands.
        candidates: each is applied, scored and taken off. A sequence is put in the order of layers; anything else is asked for
            one at a time, and costs a pass over the blocks below wherever it goes down.
        decompose: how to come by decompositions.
    """
    prefix = _Prefix(scorer)
    held = _DecomposedOnce(decompose)
    in_order = sorted(candidates, key=lambda entry: entry.site) if isinstance(candidates, Sequence) else candidates
    for candidate in in_order:
        prefix.go_to(candidate.site.layer)
        held.come_to(candidate.site)
        yield candidate, _scoring(scorer, candidate, held, prefix.layer, prefix.states)


class _Prefix:
    """The hidden states that enter one layer, moved up as layers are gone through."""

    def __init__(self, scorer: Scorer | ClassScorer) -> None:
        self._scorer = scorer
        self.layer = 0
        self.states: list[Tensor] | None = None

    def go_to(self, layer: int) -> None:
        scorer = self._scorer
        if layer == self.layer or not isinstance(scorer, Scorer) or not scorer.anatomy.family.resumes:
            return
        if layer < self.layer:
            self.layer, self.states = 0, None
        if layer > 0:
            self.states = scorer.states_entering(layer, start=self.layer, states=self.states)
        self.layer = layer


class _DecomposedOnce:
    """A way to come by decompositions for candidates of one site: what is asked again, the matrix or a block of it, is the same."""

    def __init__(self, decompose: Decompose) -> None:
        self._decompose = decompose
        self._site: WeightSite | None = None
        self._held: list[tuple[Tensor, SingularValueDecomposition]] = []

    def come_to(self, site: WeightSite) -> None:
        if site != self._site:
            self._site, self._held = site, []

    def __call__(self, matrix: Tensor) -> SingularValueDecomposition:
        for known, found in self._held:
            if known.shape == matrix.shape and torch.equal(known, matrix):
                return found
        self._held.append((matrix.clone(), self._decompose(matrix)))
        return self._held[-1][1]


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
