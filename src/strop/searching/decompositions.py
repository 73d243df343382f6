"""The decompositions a method works in: those of the matrices as they were when it began."""

from collections.abc import Sequence

from transformers import PreTrainedModel

from strop.anatomy import Anatomy, WeightSite
from strop.interventions.interfaces import Decompose
from strop.linalg import SingularValueDecomposition
from strop.scoring import Resources


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
        self._decompose = decompose
        self._budget_bytes = budget_bytes if budget_bytes is not None else Resources.of(model).decomposition_bytes
        self._held: dict[WeightSite, SingularValueDecomposition] = {}
        self._held_bytes = 0

    def __call__(self, site: WeightSite) -> SingularValueDecomposition:
        """Return a site's decomposition.

        Raises:
            DecompositionError: the matrix holds NaN or infinity, or no solver could decompose it.
        """
        found = self._held.get(site)
        if found is None:
            found = self._decompose(self._matrices[site])
            size = _bytes_of(found)
            if self._held_bytes + size <= self._budget_bytes:  # all are met in turn: to drop the oldest gains nothing
                self._held[site] = found
                self._held_bytes += size
        return found


def _bytes_of(decomposition: SingularValueDecomposition) -> int:
    return decomposition.u.nbytes + decomposition.singular_values.nbytes + decomposition.vh.nbytes
