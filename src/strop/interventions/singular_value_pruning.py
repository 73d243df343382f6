"""Eigenpruning's intervention: chosen singular values of a weight matrix are set to zero."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor

from strop.anatomy import WeightSite
from strop.errors import InterventionError, UsageError
from strop.interventions.checks import is_finite, refuse_no_components, refuse_unknown
from strop.interventions.factored_change import FactoredChange
from strop.interventions.indices import MOST, parse_indices, spell_indices
from strop.interventions.interfaces import Decompose, Entry, Shape
from strop.linalg import full_precision, without_components

Bias = Literal["none", "mean", "position"]
"""What stays behind of the removed components: nothing, their mean output, or their mean output at each position."""


@dataclasses.dataclass(frozen=True)
class SingularValuePruning:
    """Remove chosen components of one matrix, and leave their mean output behind as a bias.

    W ← Σ_{i∉R} σ_i u_i v_iᵀ, b ← b + Σ_{i∈R} σ_i u_i (v_i · μ)
    (Vergara-Browne, Soto and Aizawa, eigenpruning, arXiv 2404.03147)

    μ is the mean of the matrix's input over a task's sample (`mean`), or over the sample at each position
    (`position`, as the paper has it: for sequences of that one length only). The bias is a tensor of the recipe, `bias`.

    Args:
        site: the matrix, or one head's share of it.
        removed: R, the components' indices in descending order of their singular values, counted from 0, ascending.
        bias: what stays behind.

    Raises:
        UsageError: no index, an index below 0, or one out of order.

    >>> from strop.anatomy import MatrixType
    >>> print(SingularValuePruning(WeightSite(3, MatrixType.KEY, head=1), removed=(0, 1, 2, 9)))
    layer 3 key head 1, 4 singular values removed (0-2,9)
    """

    site: WeightSite
    removed: tuple[int, ...]
    bias: Bias = "none"
    method: ClassVar[str] = "singular_value_pruning"
    kind: ClassVar[Literal["weight"]] = "weight"
    learned_tensors: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        if (
            not self.removed
            or self.removed[0] < 0
            or any(later <= earlier for earlier, later in zip(self.removed, self.removed[1:], strict=False))
        ):
            raise UsageError(
                f"{self.site}: removed lists at least one component, counted from 0, ascending, none twice; "
                f"not {self.removed}."
            )
        if self.bias not in get_args(Bias):
            raise UsageError(f"{self.site}: bias is one of {', '.join(get_args(Bias))}, not '{self.bias}'.")

    def __str__(self) -> str:
        shown = spell_indices(self.removed)
        shown = shown if len(shown) <= 40 else f"{shown[: shown.rindex(',', 0, 37)]},..."
        count = len(self.removed)
        bias = "" if self.bias == "none" else f", {self.bias} bias"
        return f"{self.site}, {count} singular value{'' if count == 1 else 's'} removed ({shown}){bias}"

    def check(self, tensors: Mapping[str, Tensor], shape: Shape) -> None:
        """Make sure that tensors are the bias, where there is to be one, and both factors of what is removed, or neither.

        Raises:
            InterventionError: they are anything else.
        """
        bias = () if self.bias == "none" else ("bias",)
        refuse_unknown(tensors, ("left", "right", *bias), where=str(self.site), method=self.method)
        outputs, inputs = shape
        count = len(self.removed)
        found = [tuple(tensors[name].shape) if name in tensors else "none" for name in ("left", "right")]
        if found not in (["none", "none"], [(outputs, count), (count, inputs)]):
            raise InterventionError(
                f"{self.site}: factors of shapes {found[0]} and {found[1]} are not {count} "
                f"components of a {outputs} x {inputs} matrix."
            )
        shift = self.output_shift(tensors)
        if shift is not None and shift.shape[-1] != outputs:
            raise InterventionError(
                f"{self.site}: a bias of shape {tuple(shift.shape)} does not fit a matrix of {outputs} outputs; prune anew."
            )
        for name, tensor in tensors.items():
            if not is_finite(tensor):
                raise InterventionError(f"{self.site}: its {name} is not made of finite numbers; prune anew.")

    def check_factors(self, matrix: Tensor, tensors: Mapping[str, Tensor], *, tolerance: float) -> None:
        """Make sure that factors, where there are any, are those of a matrix.

        Raises:
            InterventionError: they are not.
        """
        if "left" in tensors:
            refuse_no_components(matrix, tensors, self.removed, where=str(self.site), tolerance=tolerance)

    @full_precision()
    def edit(self, matrix: Tensor, *, decompose: Decompose, tensors: Mapping[str, Tensor]) -> Tensor:
        """Return the matrix without the removed components, (out, in), in its own dtype.

        Raises:
            UsageError: the matrix has no such component.
        """
        if "left" in tensors and "right" in tensors:
            left, right = tensors["left"].to(matrix.device), tensors["right"].to(matrix.device)
            return (matrix.to(left.dtype) - left @ right).to(matrix.dtype)
        return without_components(matrix, decompose(matrix), self.removed)

    def factored_change(
        self, matrix: Tensor, *, decompose: Decompose, tensors: Mapping[str, Tensor]
    ) -> FactoredChange | None:
        """Return −U_R diag(σ_R) and V_Rᵀ; None where so many are removed that these are no smaller than the matrix."""
        factors = tensors if "left" in tensors else self.precomputed(matrix, decompose=decompose)
        change = FactoredChange(-factors["left"], factors["right"])
        return change if change.is_small else None

    def spectrum_scales(self, tensors: Mapping[str, Tensor], shape: Shape) -> Tensor:
        """Return 0 for each removed singular value, and 1 for the others, (min(out, in),)."""
        scales = torch.ones(min(shape))
        scales[list(self.removed)] = 0.0
        return scales

    def output_shift(self, tensors: Mapping[str, Tensor]) -> Tensor | None:
        """Return the bias the removed components leave behind: (out,), or (positions, out); None without one.

        Raises:
            InterventionError: the recipe lacks it, or its shape is another.
        """
        if self.bias == "none":
            return None
        axes = 1 if self.bias == "mean" else 2
        if "bias" not in tensors or tensors["bias"].ndim != axes:
            found = f"of {tensors['bias'].ndim} axes" if "bias" in tensors else "missing"
            raise InterventionError(
                f"{self.site}: a {self.bias} bias is a tensor of {axes} ax{'i' if axes == 1 else 'e'}s, and the "
                f"recipe's is {found}; prune anew."
            )
        return tensors["bias"]

    def removed_factors(self, matrix: Tensor, *, decompose: Decompose) -> tuple[Tensor, Tensor]:
        """Return (out, count) = U_R diag(σ_R) and (count, in) = V_Rᵀ, whose product is what is removed."""
        left, right = decompose(matrix).factors_of(self.removed)
        return left.contiguous(), right.contiguous()

    def precomputed(self, matrix: Tensor, *, decompose: Decompose) -> dict[str, Tensor]:
        """Return the factors that are removed, as `left` and `right`."""
        left, right = self.removed_factors(matrix, decompose=decompose)
        return {"left": left, "right": right}

    def parameter_count(self, shape: Shape) -> int:
        """Return 0: it learns nothing."""
        return 0

    def initial_tensors(self, shape: Shape | int, *, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Return none: it learns nothing."""
        return {}

    def obstacle_to_baking(self, tensors: Mapping[str, Tensor]) -> str | None:
        """Return that a checkpoint holds no bias by position, where there is one."""
        if self.bias != "position":
            return None
        return "a checkpoint cannot hold a bias that differs by position; prune with --bias mean, or keep the recipe and apply it."

    def to_json(self, shape: Shape) -> dict[str, Any]:
        """Return what a recipe writes: the decision, with how many components it means out of how many."""
        return {
            "method": self.method,
            **self.site.to_json(),
            "removed": spell_indices(self.removed),
            "removed_count": len(self.removed),
            "full_rank": min(shape),
            "bias": self.bias,
        }

    @classmethod
    def from_json(cls, entry: Entry) -> "SingularValuePruning":
        """Return the intervention a recipe's entry describes."""
        removed, site = entry["removed"], WeightSite.from_json(entry)
        if not isinstance(removed, str):
            raise UsageError(f"removed is a text such as 0-3,17, not {removed!r}.")
        rank = entry.get("full_rank", MOST)
        if type(rank) is not int or not 0 < rank <= MOST:
            raise UsageError(f"full_rank is how many components there are, not {rank!r}.")
        return cls(site, parse_indices(removed, count=rank), bias=entry.get("bias", "none"))

    @classmethod
    def summarize(cls, entries: Sequence[Entry]) -> dict[int, str]:
        """Return a line for the prunings of each matrix type that leave the same kind of bias."""
        together: dict[tuple[str, str], list[int]] = {}
        for index, entry in enumerate(entries):
            together.setdefault((entry["matrix_type"], entry["bias"]), []).append(index)
        return {places[0]: _line([entries[place] for place in places]) for places in together.values()}

    @classmethod
    def brief(cls, entries: Sequence[Entry]) -> str:
        """Return how many components of a matrix, those of its heads summed, are removed."""
        return f"{sum(entry['removed_count'] for entry in entries):,} removed"


def _line(entries: Sequence[Entry]) -> str:
    first = entries[0]
    removed, full_rank = (sum(entry[name] for entry in entries) for name in ("removed_count", "full_rank"))
    layers = {entry["layer"] for entry in entries}
    where = f"{len(layers)} layers" if len(layers) > 1 else f"layer {first['layer']}"
    bias = "" if first["bias"] == "none" else f" ({first['bias']} bias)"
    return f"{first['matrix_type']}: {removed:,} of {full_rank:,} singular values removed in {where}{bias}"
