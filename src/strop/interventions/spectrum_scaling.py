"""The spectrum's intervention: every singular value of a weight matrix is scaled by a number of its own."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional

from strop.anatomy import WeightSite
from strop.errors import InterventionError, UsageError
from strop.interventions.checks import is_finite, refuse_no_components, refuse_unknown
from strop.interventions.factored_change import FactoredChange
from strop.interventions.interfaces import Decompose, Entry, Shape, shape_of_size
from strop.interventions.singular_value_pruning import SingularValuePruning
from strop.linalg import full_precision

LOWEST, HIGHEST = -1.0, 4.0
"""Between which a change lies: -1 removes a component, and none is turned around or made more than five times as large."""

LEVELS = 127
"""Most steps of one size that a byte counts."""


@dataclasses.dataclass(frozen=True)
class SpectrumScaling:
    """Scale each singular value of one matrix, or the largest of them.

    W ← U diag(σ ⊙ (1 + d)) Vᵀ  (singular value fine-tuning, with z = 1 + d: arXiv 2501.06252)

    d is a tensor of the recipe: `change`, (count,); or, where all changes are whole multiples of one step, `levels`, (count,)
    of int8, with d = step · levels. With a band, diag(d) has N diagonals on either side as well (SVFT: arXiv 2405.19597):
    row i of U diag(σ) (diag(d) + B) Vᵀ, B_{i,i+k} for k = 1, −1, 2, −2, … being the rows of `band`, (2N, count).

    Args:
        site: the matrix, or one head's share of it.
        step: what levels are multiples of; None where the changes are written as they are.
        top: how many of the largest singular values are scaled; None for all.
        band: N, diagonals on either side of the main one.

    Raises:
        UsageError: the step is not above 0, there is no value to scale, or a band is asked of steps.

    >>> from strop.anatomy import MatrixType
    >>> from strop.linalg import decompose
    >>> scaling, halved = SpectrumScaling(WeightSite(3, MatrixType.UP)), {"change": torch.tensor([-0.5, 0.0])}
    >>> scaling.edit(torch.tensor([[4.0, 0.0], [0.0, 1.0]]), decompose=decompose, tensors=halved)
    tensor([[2., 0.],
            [0., 1.]])
    """

    site: WeightSite
    step: float | None = None
    top: int | None = None
    band: int = 0
    method: ClassVar[str] = "spectrum"
    kind: ClassVar[Literal["weight"]] = "weight"

    def __post_init__(self) -> None:
        if self.step is not None and (type(self.step) not in (int, float) or not 0 < self.step <= 1):
            raise UsageError(
                f"{self.site}: a step of the spectrum is above 0 and at most 1, not {str(self.step)[:40]}."
            )
        if self.top is not None and self.top < 1:
            raise UsageError(f"{self.site}: of the largest singular values 1 or more are scaled, not {self.top}.")
        if self.band < 0 or (self.band and self.step is not None):
            raise UsageError(f"{self.site}: a band is 0 or more diagonals, and none beside levels, not {self.band}.")

    def __str__(self) -> str:
        which = f"{self.top} largest " if self.top is not None else ""
        steps = f", in steps of {self.step:.2%}" if self.step is not None else ""
        band = f", with {self.band} diagonals on either side" if self.band else ""
        return f"{self.site}, {which}singular values scaled{steps}{band}"

    @property
    def learned_tensors(self) -> tuple[str, ...]:
        """`change` and, where there is one, `band`; none where the changes are multiples of a step."""
        if self.step is not None:
            return ()
        return ("change", "band") if self.band else ("change",)

    def change(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """Return d, (count,).

        Raises:
            InterventionError: the recipe lacks it.
        """
        name = "change" if self.step is None else "levels"
        if name not in tensors:
            raise InterventionError(
                f"{self.site}: the recipe's {name} is missing; copy the whole folder, or sharpen anew."
            )
        return tensors[name] if self.step is None else tensors[name].float() * self.step

    def removed_by(self, tensors: Mapping[str, Tensor]) -> tuple[int, ...] | None:
        """Return the components it removes, where it leaves all others as they are; None where it scales or mixes any."""
        change = self.change(tensors)
        gone = change == -1
        if self.band or not bool((gone | (change == 0)).all()):
            return None
        return tuple(gone.nonzero().flatten().tolist())

    def check(self, tensors: Mapping[str, Tensor], shape: Shape) -> None:
        """Make sure that there is one change for each singular value, from -1 to 4, and both factors or neither.

        Raises:
            InterventionError: they are anything else.
        """
        name = "change" if self.step is None else "levels"
        known = (name, "band", "left", "right") if self.band else (name, "left", "right")
        refuse_unknown(tensors, known, where=str(self.site), method=self.method)
        if self.top is not None and self.top > min(shape):
            raise InterventionError(
                f"{self.site}: it has {min(shape)} singular values, not {self.top}; give a lower top."
            )
        change, count = self.change(tensors), self.count(shape)
        if tuple(change.shape) != (count,):
            raise InterventionError(
                f"{self.site}: {name} of shape {tuple(change.shape)} are not the changes of {count} singular values."
            )
        if self.step is not None and tensors[name].dtype != torch.int8:
            raise InterventionError(f"{self.site}: levels are whole numbers of one byte, not {tensors[name].dtype}.")
        if not is_finite(change) or bool(((change < LOWEST - 1e-6) | (change > HIGHEST + 1e-6)).any()):
            raise InterventionError(
                f"{self.site}: the changes of singular values lie between {LOWEST:g} and {HIGHEST:g}, and the recipe's do "
                "not; sharpen or train anew."
            )
        if self.band >= count:
            raise InterventionError(
                f"{self.site}: {count} singular values have {count - 1} diagonals, not {self.band}."
            )
        band = tensors.get("band")
        if self.band and (band is None or tuple(band.shape) != (2 * self.band, count) or not is_finite(band)):
            found = "none" if band is None else f"of shape {tuple(band.shape)}"
            raise InterventionError(
                f"{self.site}: its band is to be of shape {(2 * self.band, count)} and made of finite numbers, and is {found}."
            )
        outputs, inputs = shape
        given = [tuple(tensors[factor].shape) if factor in tensors else "none" for factor in ("left", "right")]
        if given not in (["none", "none"], [(outputs, count), (count, inputs)]):
            raise InterventionError(
                f"{self.site}: factors of shapes {given[0]} and {given[1]} are not those of a {outputs} x {inputs} matrix."
            )
        if not all(is_finite(tensors[factor]) for factor in ("left", "right") if factor in tensors):
            raise InterventionError(f"{self.site}: the recipe's factors are not made of finite numbers; save it anew.")

    def check_factors(self, matrix: Tensor, tensors: Mapping[str, Tensor], *, tolerance: float) -> None:
        """Make sure that factors, where there are any, are those of a matrix.

        Raises:
            InterventionError: they are not.
        """
        if "left" in tensors:
            kept = range(self.count((matrix.shape[0], matrix.shape[1])))
            refuse_no_components(matrix, tensors, kept, where=str(self.site), tolerance=tolerance)

    def plus(
        self, other: "SpectrumScaling", mine: Mapping[str, Tensor], theirs: Mapping[str, Tensor]
    ) -> tuple["SpectrumScaling", dict[str, Tensor]] | None:
        """Return another scaling of the same matrix of the base and this one as one: their changes added.

        Both are changes along the base's own singular vectors: diag(d) + B of one and of the other add up.

        Args:
            other: of the same site.
            mine: the tensors of this one.
            theirs: the tensors of the other.

        Returns:
            The sum and its tensors; None where the two scale different values.
        """
        if (self.site, self.top, self.band) != (other.site, other.top, other.band):
            return None
        factors = {name: own for name, own in {**theirs, **mine}.items() if name in ("left", "right")}
        if self.step is not None and self.step == other.step:
            levels = mine["levels"].short() + theirs["levels"].short()
            if bool((levels.abs() <= LEVELS).all()):
                return self, {"levels": levels.to(torch.int8), **factors}
        summed = {"change": self.change(mine) + other.change(theirs)}
        if self.band:
            summed["band"] = mine["band"] + theirs["band"]
        return dataclasses.replace(self, step=None), {**summed, **factors}

    def lessened(self, tensors: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
        """Return share · d and share · B; nothing where d is multiples of a step, and so not learned."""
        return {name: share * tensors[name] for name in self.learned_tensors}

    def held_in_bounds(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return learned tensors with every change moved to the nearest one that is allowed."""
        return {name: own.clamp(LOWEST, HIGHEST) if name == "change" else own for name, own in tensors.items()}

    @full_precision()
    def edit(self, matrix: Tensor, *, decompose: Decompose, tensors: Mapping[str, Tensor]) -> Tensor:
        """Return W + U diag(σ) (diag(d) + B) Vᵀ, (out, in): W itself, bit for bit, where nothing is changed.

        Where it only removes components, it is what `SingularValuePruning` makes of the matrix, bit for bit.
        """
        removed = None if self.change(tensors).requires_grad else self.removed_by(tensors)
        if removed is not None:
            chosen = list(removed)
            of_removed = (
                {"left": tensors["left"][:, chosen], "right": tensors["right"][chosen]} if "left" in tensors else {}
            )
            pruning = SingularValuePruning(self.site, removed) if removed else None
            return matrix if pruning is None else pruning.edit(matrix, decompose=decompose, tensors=of_removed)
        factors = tensors if "left" in tensors and "right" in tensors else self.precomputed(matrix, decompose=decompose)
        left, right = factors["left"].to(matrix.device), factors["right"].to(matrix.device)
        change = left @ self._mixed(right.T, tensors).T
        return (matrix.to(left.dtype) + change).to(matrix.dtype)

    def output_change(self, inputs: Tensor, tensors: Mapping[str, Tensor]) -> Tensor:
        """Return x (W′ − W)ᵀ without ever forming W′: x Vᵀ scaled, then U diag(σ).

        Args:
            inputs: x, (..., in).
            tensors: its own and what `precomputed` returned.

        Returns:
            (..., out).
        """
        along = functional.linear(inputs, tensors["right"])
        return functional.linear(self._mixed(along, tensors), tensors["left"])

    def output(self, inputs: Tensor, tensors: Mapping[str, Tensor]) -> Tensor | None:
        """Return x W′ᵀ = U diag(σ) (1 + diag(d) + B) Vᵀ x, where all singular values are scaled: W is not needed beside them.

        W = U diag(σ) Vᵀ up to rounding, so that d = 0 gives what W gives but for the last bits.

        Args:
            inputs: x, (..., in).
            tensors: its own and what `precomputed` returned.

        Returns:
            (..., out); None where W has more components than those that are scaled.
        """
        if self.top is not None:
            return None
        along = functional.linear(inputs, tensors["right"])
        return functional.linear(self._mixed(along, tensors, kept=1), tensors["left"])

    @full_precision()
    def factored_change(
        self, matrix: Tensor, *, decompose: Decompose, tensors: Mapping[str, Tensor]
    ) -> FactoredChange | None:
        """Return U diag(σ) and (diag(d) + B) Vᵀ; None where so many are scaled that these are no smaller than the matrix."""
        factors = tensors if "left" in tensors else self.precomputed(matrix, decompose=decompose)
        change = FactoredChange(factors["left"], self._mixed(factors["right"].T, tensors).T)
        return change if change.is_small else None

    def spectrum_scales(self, tensors: Mapping[str, Tensor], shape: Shape) -> Tensor:
        """Return 1 + d of each singular value, 1 for those that are not scaled, (min(out, in),); of a band nothing is said."""
        scales = torch.ones(min(shape))
        scales[: self.count(shape)] += self.change(tensors).detach().cpu().float()
        return scales

    def count(self, shape: Shape) -> int:
        """Return how many singular values of a matrix are scaled.

        Args:
            shape: of the matrix, (out, in).
        """
        return min(shape) if self.top is None else self.top

    def _mixed(self, along: Tensor, tensors: Mapping[str, Tensor], *, kept: int = 0) -> Tensor:
        """Return (kept + diag(d) + B) times each row of coordinates along the right singular vectors, (..., count)."""
        mixed = along * (kept + self.change(tensors)).to(along)
        if self.band:
            for row, own in enumerate(tensors["band"].to(along)):
                distance = row // 2 + 1
                if distance >= along.shape[-1]:
                    continue
                neighbours = along[..., distance:] if row % 2 == 0 else along[..., :-distance]
                padding = (0, distance) if row % 2 == 0 else (distance, 0)
                mixed = mixed + own * functional.pad(neighbours, padding)
        return mixed

    def output_shift(self, tensors: Mapping[str, Tensor]) -> Tensor | None:
        """Return None: nothing is added to the output."""
        return None

    def precomputed(self, matrix: Tensor, *, decompose: Decompose) -> dict[str, Tensor]:
        """Return U diag(σ) and Vᵀ, as `left` and `right`: with them among its tensors, `edit` decomposes nothing."""
        found, kept = decompose(matrix), slice(self.top)
        right = found.vh[kept]
        return {
            "left": (found.u[:, kept] * found.singular_values[kept]).contiguous(),
            "right": right.contiguous() if self.top is None else right.clone(),  # all of it is not held for a part
        }

    def parameter_count(self, shape: Shape) -> int:
        """Return one for each singular value, and as many for each diagonal beside the main one."""
        return self.count(shape) * (1 + 2 * self.band)

    def initial_tensors(self, shape: Shape | int, *, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Return changes of 0: learning begins with the matrix as it is."""
        count = self.count(shape_of_size(shape))
        zeros = {"change": torch.zeros(count), "band": torch.zeros(2 * self.band, count)}
        return {name: zeros[name] for name in self.learned_tensors}

    def obstacle_to_baking(self, tensors: Mapping[str, Tensor]) -> str | None:
        """Return None: the edited matrix is a matrix."""
        return None

    def to_json(self, shape: Shape) -> dict[str, Any]:
        """Return what a recipe writes: the decision, with how many singular values there are."""
        options = {"step": self.step, "top": self.top, "band": self.band or None}
        given = {name: value for name, value in options.items() if value is not None}
        return {"method": self.method, **self.site.to_json(), **given, "full_rank": min(shape)}

    @classmethod
    def from_json(cls, entry: Entry) -> "SpectrumScaling":
        """Return the intervention a recipe's entry describes."""
        step, top, band = entry.get("step"), entry.get("top"), entry.get("band", 0)
        if type(top) not in (int, type(None)) or type(band) is not int:
            raise UsageError(f"its top and band are whole numbers, not {top!r} and {band!r}.")
        return cls(WeightSite.from_json(entry), step, top, band)

    @classmethod
    def summarize(cls, entries: Sequence[Entry]) -> dict[int, str]:
        """Return one line for all of them."""
        layers = {entry["layer"] for entry in entries}
        where = f"{len(layers)} layers" if len(layers) > 1 else f"layer {entries[0]['layer']}"
        steps = {entry.get("step") for entry in entries} - {None}
        sizes = f" in steps of {steps.pop():.2%}" if len(steps) == 1 else ""
        matrices = f"{len(entries)} matrices" if len(entries) > 1 else "1 matrix"
        return {0: f"{_scaled(entries):,} singular values of {matrices} in {where} scaled{sizes}"}

    @classmethod
    def brief(cls, entries: Sequence[Entry]) -> str:
        """Return how many singular values of a matrix are scaled."""
        return f"{_scaled(entries):,} scaled"


def _scaled(entries: Sequence[Entry]) -> int:
    return sum(entry.get("top") or entry["full_rank"] for entry in entries)
