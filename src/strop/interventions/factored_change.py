"""What an edit of low rank changes of a matrix, as two factors."""

import dataclasses

import torch
from torch import Tensor


@dataclasses.dataclass(frozen=True, eq=False)
class FactoredChange:
    """W′ − W = scale · left @ right: what an edit changes of a matrix.

    >>> ones = FactoredChange(torch.ones(2, 1), torch.ones(1, 3), scale=2.0)
    >>> (ones + FactoredChange(torch.ones(2, 1), torch.ones(1, 3))).product
    tensor([[3., 3., 3.],
            [3., 3., 3.]])
    """

    left: Tensor
    """(out, rank)."""
    right: Tensor
    """(rank, in)."""
    scale: float = 1.0
    """Above 0."""

    @property
    def rank(self) -> int:
        """The inner size of the factors: the change's rank, or more."""
        return self.right.shape[0]

    @property
    def product(self) -> Tensor:
        """W′ − W, (out, in)."""
        return self.scale * (self.left @ self.right)

    @property
    def is_small(self) -> bool:
        """Whether the factors are fewer numbers than the matrix."""
        return self.left.numel() + self.right.numel() < self.left.shape[0] * self.right.shape[1]

    def __add__(self, other: "FactoredChange") -> "FactoredChange":
        """Return this change of a matrix and another as one, with this one's scale: their factors side by side."""
        theirs = other.left if other.scale == self.scale else other.left * (other.scale / self.scale)
        left, right = torch.cat([self.left, theirs], dim=1), torch.cat([self.right, other.right])
        return FactoredChange(left, right, self.scale)
