"""Changes of all singular values at once: a vector over the components of many matrices."""

import dataclasses
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from strop.anatomy import WeightSite
from strop.interventions import SpectrumScaling
from strop.interventions.spectrum_scaling import HIGHEST, LEVELS, LOWEST

Preconditioner = Literal["fisher-sign", "sign", "fisher", "none"]
"""What a gradient becomes before it is a step."""

NEEDS_FISHER = ("fisher-sign", "fisher")
"""The preconditioners that ask what the base's own text resists."""

Vector = Mapping[WeightSite, Tensor]
"""For each matrix, a number for each of its singular values: (rank,) float64."""


@dataclasses.dataclass(frozen=True, eq=False)
class Spectrum:
    """d, the changes of the singular values of some matrices, as a sum of steps.

    Args:
        change: d.
        unit: what every change is a whole multiple of; None where there is no such size.
    """

    change: Vector
    unit: float | None = None

    @classmethod
    def unchanged(cls, ranks: Mapping[WeightSite, int]) -> "Spectrum":
        """Return d = 0."""
        return cls({site: torch.zeros(rank, dtype=torch.float64) for site, rank in ranks.items()})

    def after(self, direction: Vector, size: float, *, in_units: bool) -> "Spectrum":
        """Return d − size · direction, held between -1 and 4.

        Args:
            direction: of one step, of mean size 1.
            size: of the step.
            in_units: all entries of the direction are -1, 0 or 1.
        """
        aimed = {site: change - size * direction[site] for site, change in self.change.items()}
        moved = {site: change.clamp(LOWEST, HIGHEST) for site, change in aimed.items()}
        whole = in_units and all(torch.equal(moved[site], change) for site, change in aimed.items())
        begun = any(bool(change.any()) for change in self.change.values())
        unit = size if not begun else min(size, self.unit) if self.unit is not None else None
        return Spectrum(moved, unit if whole else None)

    def interventions(self) -> tuple[tuple[SpectrumScaling, ...], tuple[dict[str, Tensor], ...]]:
        """Return it as interventions with the tensors a recipe carries; matrices that stay as they are are left out.

        Changes that are all multiples of one unit are written as these, a byte each.
        """
        found, tensors = [], []
        largest = max((float(change.abs().max()) for change in self.change.values()), default=0.0)
        unit = self.unit if self.unit is not None and largest <= LEVELS * self.unit else None
        for site, change in sorted(self.change.items()):
            if not bool(change.any()):
                continue
            found.append(SpectrumScaling(site, unit))
            if unit is None:
                tensors.append({"change": change.float()})
            else:
                tensors.append({"levels": (change / unit).round().to(torch.int8)})
        return tuple(found), tuple(tensors)


def direction_of(
    gradient: Vector, precondition: Preconditioner, *, fisher: Vector | None = None, damping: float
) -> dict[WeightSite, Tensor]:
    """Return which way to go against, of mean size 1; what is no number does not move.

    `fisher-sign`: sign g / √(F + δ F̄); `sign`: sign g; `fisher`: g / (F + δ F̄); `none`: g.

    With the Fisher information F of the base's own text, KL(base ‖ edited) ≈ ½ Σ F_i d_i², and the step of least loss within a
    budget of it is along g / F. That trusts every gradient; sign g / √F trusts its sign alone, and lets each component drift as
    far as the others: F_i d_i² is the same for all.

    Args:
        gradient: g = ∂loss/∂d.
        precondition: which of these.
        fisher: F; for those that need it only.
        damping: δ.

    >>> from strop.anatomy import MatrixType
    >>> site = WeightSite(0, MatrixType.UP)
    >>> direction_of({site: torch.tensor([3.0, -1.0])}, "none", damping=0.1)[site]
    tensor([ 1.5000, -0.5000])
    """
    gradient = {site: own.nan_to_num(0.0, 0.0, 0.0) for site, own in gradient.items()}
    if precondition == "sign":
        return {site: own.sign() for site, own in gradient.items()}
    directed = dict(gradient)
    if precondition in NEEDS_FISHER:
        assert fisher is not None
        floor = damping * torch.cat([fisher[site] for site in gradient]).mean()
        if precondition == "fisher":
            directed = {site: own / (fisher[site] + floor) for site, own in gradient.items()}
        else:
            directed = {site: own.sign() / (fisher[site] + floor).sqrt() for site, own in gradient.items()}
    size = torch.cat([own.abs() for own in directed.values()]).mean()
    return {site: own / size for site, own in directed.items()} if float(size) else directed
