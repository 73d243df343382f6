"""The decompositions a method works in: those of the matrices as they were when it began."""

import dataclasses
from collections import defaultdict
from collections.abc import Mapping, Sequence

from torch import Tensor
from transformers import PreTrainedModel

from strop.anatomy import Anatomy, WeightSite
from strop.interventions.interfaces import Decompose, DecomposesTogether
from strop.linalg import SingularValueDecomposition
from strop.scoring import Resources


def decompose_all(
    decompose: Decompose, matrices: Mapping[WeightSite, Tensor]
) -> dict[WeightSite, SingularValueDecomposition]:
    """Return the decompositions of some matrices, those of experts that are alike made together.

    Args:
        decompose: how to come by decompositions.
        matrices: (out, in) each.

    Raises:
        DecompositionError: a matrix holds NaN or infinity, or no solver could decompose it.
    """
    if not isinstance(decompose, DecomposesTogether):
        return {site: decompose(matrix) for site, matrix in matrices.items()}
    alike: dict[object, list[WeightSite]] = defaultdict(list)
    for site, matrix in matrices.items():
        alike[(matrix.shape, matrix.dtype, matrix.device) if site.expert is not None else site].append(site)
    made: dict[WeightSite, SingularValueDecomposition] = {}
    for sites in alike.values():
        made.update(zip(sites, decompose.together([matrices[site] for site in sites]), strict=True))
    return {site: made[site] for site in matrices}


class HeldDecompositions:
    """Each site's decomposition, of its matrix as it was when this was made, whatever has been edited since.

    Args:
        model: as it is when the method begins.
        anatomy: of that model.
        sites: whole matrices, or single heads.
        decompose: how to come by decompositions.
        budget_bytes: most that those held in memory may take; what suits the model's device by default.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        anatomy: Anatomy,
        sites: Sequence[WeightSite],
        *,
        decompose: Decompose,
        budget_bytes: int | None = None,
    ) -> None:
        self._matrices = {site: anatomy.read_weight(model, site) for site in sites}
        self._alike: dict[WeightSite, list[WeightSite]] = defaultdict(list)
        """The experts' matrices of one type in one layer, under what they have in common."""
        for site in sites:
            if site.expert is not None:
                self._alike[dataclasses.replace(site, expert=None)].append(site)
        self._decompose = decompose
        self._budget_bytes = budget_bytes if budget_bytes is not None else Resources.of(model).decomposition_bytes
        self._held: dict[WeightSite, SingularValueDecomposition] = {}
        self._held_bytes = 0

    def __call__(self, site: WeightSite) -> SingularValueDecomposition:
        """Return a site's decomposition.

        Raises:
            DecompositionError: the matrix holds NaN or infinity, or no solver could decompose it.
        """
        if site in self._held:
            return self._held[site]
        made = decompose_all(self._decompose, {other: self._matrices[other] for other in self._wanted_with(site)})
        size = sum(_bytes_of(found) for found in made.values())
        if self._held_bytes + size <= self._budget_bytes:  # all are met in turn: to drop the oldest gains nothing
            self._held |= made
            self._held_bytes += size
        return made[site]

    def _wanted_with(self, site: WeightSite) -> list[WeightSite]:
        """Return the experts whose matrices are decomposed together with one, where all of them can be held; else it alone."""
        if site.expert is None or not isinstance(self._decompose, DecomposesTogether):
            return [site]
        experts = self._alike[dataclasses.replace(site, expert=None)]
        outputs, inputs = self._matrices[site].shape
        size = len(experts) * min(outputs, inputs) * (outputs + inputs + 1) * 8
        return experts if self._held_bytes + size <= self._budget_bytes else [site]


def _bytes_of(decomposition: SingularValueDecomposition) -> int:
    return decomposition.u.nbytes + decomposition.singular_values.nbytes + decomposition.vh.nbytes
