"""LoRA: a learned matrix of low rank, added to a matrix that stays as it is."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from strop.anatomy import WeightSite
from strop.errors import InterventionError, UsageError
from strop.interventions.checks import is_finite, refuse_unknown
from strop.interventions.factored_change import FactoredChange
from strop.interventions.interfaces import Decompose, Entry, Shape, shape_of_size
from strop.linalg import full_precision


@dataclasses.dataclass(frozen=True)
class LowRankUpdate:
    """Add a learned matrix of low rank to one matrix.

    W ← W + (α / r) B A  (Hu et al., LoRA, arXiv 2106.09685, eq. 3)

    A and B are tensors of the recipe: `A`, (rank, in), and `B`, (out, rank). An adapter of PEFT's holds the same numbers:
    `strop.export.export_peft`.

    Args:
        site: the matrix, or one head's share of it.
        rank: r, of what is added.
        alpha: α, which over r scales it.

    Raises:
        UsageError: the rank is below 1, or α is no finite number above 0.

    >>> from strop.anatomy import MatrixType
    >>> from strop.linalg import decompose
    >>> update = LowRankUpdate(WeightSite(3, MatrixType.QUERY), rank=1, alpha=2)
    >>> learned = {"A": torch.tensor([[1.0, 0.0]]), "B": torch.tensor([[0.0], [0.5]])}
    >>> update.edit(torch.eye(2), decompose=decompose, tensors=learned)
    tensor([[1., 0.],
            [1., 1.]])
    """

    site: WeightSite
    rank: int
    alpha: float
    method: ClassVar[str] = "lora"
    kind: ClassVar[Literal["weight"]] = "weight"
    learned_tensors: ClassVar[tuple[str, ...]] = ("A", "B")

    def __post_init__(self) -> None:
        if type(self.rank) is not int or self.rank < 1:
            raise UsageError(f"{self.site}: a LoRA's rank is 1 or more, not {str(self.rank)[:40]}.")
        if type(self.alpha) not in (int, float) or not 0 < self.alpha < math.inf:
            raise UsageError(f"{self.site}: a LoRA's alpha is a number above 0, not {str(self.alpha)[:40]}.")

    def __str__(self) -> str:
        return f"{self.site}, LoRA of rank {self.rank}"

    @property
    def scale(self) -> float:
        """α / r."""
        return self.alpha / self.rank

    def check(self, tensors: Mapping[str, Tensor], shape: Shape) -> None:
        """Make sure that A and B are there, fit the matrix, and are made of finite numbers.

        Raises:
            InterventionError: they are anything else.
        """
        refuse_unknown(tensors, self.learned_tensors, where=str(self.site), method=self.method)
        outputs, inputs = shape
        for name, wanted in (("A", (self.rank, inputs)), ("B", (outputs, self.rank))):
            own = tensors.get(name)
            if own is None:
                raise InterventionError(
                    f"{self.site}: the recipe's {name} is missing; copy the whole folder, or train anew."
                )
            if tuple(own.shape) != wanted or not is_finite(own):
                raise InterventionError(
                    f"{self.site}: its {name} is to be {wanted} finite numbers, not a tensor of shape {tuple(own.shape)}."
                )

    @full_precision()
    def edit(self, matrix: Tensor, *, decompose: Decompose, tensors: Mapping[str, Tensor]) -> Tensor:
        """Return W + (α / r) B A, (out, in)."""
        wide = torch.promote_types(matrix.dtype, torch.float32)
        own = {name: tensor.to(matrix.device, wide) for name, tensor in tensors.items()}
        return (matrix.to(wide) + self.scale * (own["B"] @ own["A"])).to(matrix.dtype)

    def output_change(self, inputs: Tensor, tensors: Mapping[str, Tensor]) -> Tensor:
        """Return x (W′ − W)ᵀ = (α / r) B A x, without ever forming B A.

        Args:
            inputs: x, (..., in).
            tensors: its own.

        Returns:
            (..., out).
        """
        along = functional.linear(inputs, tensors["A"].to(inputs))
        return functional.linear(along, tensors["B"].to(inputs)) * self.scale

    def factored_change(
        self, matrix: Tensor, *, decompose: Decompose, tensors: Mapping[str, Tensor]
    ) -> FactoredChange | None:
        """Return W′ − W as B, A and α / r."""
        return FactoredChange(tensors["B"], tensors["A"], self.scale)

    def plus(
        self, other: "LowRankUpdate", mine: Mapping[str, Tensor], theirs: Mapping[str, Tensor]
    ) -> tuple["LowRankUpdate", dict[str, Tensor]] | None:
        """Return another update of the same matrix of the base and this one as one, of both ranks together.

        Args:
            other: of a site that overlaps this one's.
            mine: the tensors of this one.
            theirs: the tensors of the other.

        Returns:
            The sum and its tensors; None where one is of a head of the other's matrix.
        """
        if self.site != other.site:
            return None
        both = FactoredChange(mine["B"], mine["A"], self.scale) + FactoredChange(theirs["B"], theirs["A"], other.scale)
        summed = LowRankUpdate(self.site, both.rank, both.scale * both.rank)
        return summed, {"A": both.right, "B": both.left}

    def lessened(self, tensors: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
        """Return A, and share · B."""
        return {"A": tensors["A"], "B": share * tensors["B"]}

    def output_shift(self, tensors: Mapping[str, Tensor]) -> Tensor | None:
        """Return None: nothing is added to the output."""
        return None

    def precomputed(self, matrix: Tensor, *, decompose: Decompose) -> dict[str, Tensor]:
        """Return nothing: no decomposition is needed."""
        return {}

    def parameter_count(self, shape: Shape) -> int:
        """Return r · (out + in)."""
        return self.rank * sum(shape)

    def initial_tensors(self, shape: Shape | int, *, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Return A drawn evenly from ±1/√in, as nn.Linear and PEFT draw it, and B of zeros: learning begins with W."""
        outputs, inputs = shape_of_size(shape)
        drawn = torch.empty(self.rank, inputs)
        nn.init.kaiming_uniform_(drawn, a=math.sqrt(5), generator=generator)
        return {"A": drawn, "B": torch.zeros(outputs, self.rank)}

    def obstacle_to_baking(self, tensors: Mapping[str, Tensor]) -> str | None:
        """Return None: the edited matrix is a matrix."""
        return None

    def to_json(self, shape: Shape) -> dict[str, Any]:
        """Return what a recipe writes: the decision, with how many numbers it learns."""
        parameters = self.parameter_count(shape)
        return {
            "method": self.method,
            **self.site.to_json(),
            "rank": self.rank,
            "alpha": self.alpha,
            "parameters": parameters,
        }

    @classmethod
    def from_json(cls, entry: Entry) -> "LowRankUpdate":
        """Return the intervention a recipe's entry describes."""
        return cls(WeightSite.from_json(entry), entry["rank"], entry["alpha"])

    @classmethod
    def summarize(cls, entries: Sequence[Entry]) -> dict[int, str]:
        """Return a line for all of one rank and α."""
        together: dict[tuple[int, float], list[int]] = {}
        for index, entry in enumerate(entries):
            together.setdefault((entry["rank"], entry["alpha"]), []).append(index)
        return {places[0]: _line([entries[place] for place in places]) for places in together.values()}

    @classmethod
    def brief(cls, entries: Sequence[Entry]) -> str:
        """Return of which rank what is added to a matrix, or to its heads, is."""
        return f"LoRA of rank {', '.join(map(str, sorted({entry['rank'] for entry in entries})))}"


def _line(entries: Sequence[Entry]) -> str:
    kinds = ", ".join(sorted({entry["matrix_type"] for entry in entries}))
    layers = {entry["layer"] for entry in entries}
    where = f"{len(layers)} layers" if len(layers) > 1 else f"layer {entries[0]['layer']}"
    first, count = entries[0], sum(entry["parameters"] for entry in entries)
    return f"LoRA of rank {first['rank']} (α {first['alpha']:g}) on {kinds} in {where} ({count:,} learned parameters)"
