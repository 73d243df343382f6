"""Eigenpruning's intervention: chosen singular values of a weight matrix are set to zero."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, get_args

from torch import Tensor

from strop.anatomy import WeightSite
from strop.errors import InterventionError, UsageError
from strop.interventions.base import Decompose, site_from_json
from strop.interventions.indices import parse_indices, spell_indices
from strop.linalg import without_components

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

    def edit(self, matrix: Tensor, *, decompose: Decompose, tensors: Mapping[str, Tensor]) -> Tensor:
        """Return the matrix without the removed components, (out, in), in its own dtype.

        Raises:
            InterventionError: the recipe's factors do not fit the matrix.
            UsageError: the matrix has no such component.
        """
        if "left" in tensors and "right" in tensors:
            left, right = tensors["left"].to(matrix.device), tensors["right"].to(matrix.device)
            count = len(self.removed)
            if (left.shape, right.shape) != ((matrix.shape[0], count), (count, matrix.shape[1])):
                raise InterventionError(
                    f"{self.site}: factors of shapes {tuple(left.shape)} and {tuple(right.shape)} are not {count} "
                    f"components of a {matrix.shape[0]} x {matrix.shape[1]} matrix."
                )
            return (matrix.to(left.dtype) - left @ right).to(matrix.dtype)
        return without_components(matrix, decompose(matrix), self.removed)

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

    def factors(self, matrix: Tensor, *, decompose: Decompose) -> dict[str, Tensor]:
        """Return left (out, count) = U_R diag(σ_R) and right (count, in) = V_Rᵀ, whose product is what is removed."""
        left, right = decompose(matrix).factors_of(self.removed)
        return {"left": left.contiguous(), "right": right.contiguous()}

    def to_json(self, shape: tuple[int, int]) -> dict[str, Any]:
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
    def from_json(cls, entry: Mapping[str, Any]) -> "SingularValuePruning":
        """Return the intervention a recipe's entry describes."""
        removed = entry["removed"]
        if not isinstance(removed, str):
            raise UsageError(f"removed is a text such as 0-3,17, not {removed!r}.")
        return cls(site_from_json(entry), parse_indices(removed), bias=entry.get("bias", "none"))
