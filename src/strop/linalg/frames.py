"""Orthonormal frames: the rows of a free matrix made orthonormal, at a price that does not grow with its square."""

import dataclasses

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from strop.errors import DecompositionError
from strop.linalg.precision import full_precision


@full_precision()
def orthonormal_rows(raw: Float[Tensor, "*sets rank features"]) -> Float[Tensor, "*sets rank features"]:
    """Return rows that span what those of a matrix span, each of length one and at right angles to the others.

    R = L⁻¹A with A Aᵀ = L Lᵀ, twice  (CholeskyQR2: Fukaya, Nakatsukasa, Yanagisawa and Yamamoto, ScalA 2014)

    Row i depends on rows 0 to i of A alone, as in Gram and Schmidt's procedure: whatever later rows learn, the earlier
    ones stay. A matrix whose rows are orthonormal already is its own frame. It costs O(rank² · features), can be
    differentiated, and is computed in float32, or in float64 where the matrix is.

    Args:
        raw: A, of full rank, or several; the condition number of its rows must be below some 1,000.

    Returns:
        R, with R Rᵀ = I to about 1e-6 in float32.

    Raises:
        DecompositionError: the rows are linearly dependent, nearly so, or not finite.

    >>> frame = orthonormal_rows(torch.tensor([[3.0, 4.0, 0.0], [1.0, 0.0, 2.0]]))
    >>> torch.allclose(frame @ frame.T, torch.eye(2), atol=1e-6)
    True
    """
    frames = rows_made_orthonormal(raw)
    frames.check()
    return frames.rows


@dataclasses.dataclass(frozen=True, eq=False)
class Frames:
    """Rows made orthonormal, of which nobody has asked yet whether they could be."""

    rows: Float[Tensor, "*sets rank features"]
    dependent: Bool[Tensor, ""]
    """On the rows' device: whether those of one set were linearly dependent."""

    def check(self) -> None:
        """Wait for the device to have come this far.

        Raises:
            DecompositionError: the rows of a set were linearly dependent, nearly so, or not finite.
        """
        if self.dependent:
            raise DecompositionError(
                f"The {self.rows.shape[-2]} rows of a learned subspace have become linearly dependent or are not finite; "
                "train with a lower rank or a lower learning rate."
            )


@full_precision()
def rows_made_orthonormal(raw: Float[Tensor, "*sets rank features"]) -> Frames:
    """Return what `orthonormal_rows` returns, unchecked: the host does not wait for the device.

    Args:
        raw: A, or several, which are made orthonormal together.
    """
    rows = raw if raw.dtype == torch.float64 else raw.float()
    rows, failed = _half_step(rows, furthest=torch.inf)
    rows, failed_again = _half_step(rows, furthest=0.5)
    return Frames(rows, failed | failed_again)


def _half_step(rows: Tensor, *, furthest: float) -> tuple[Tensor, Tensor]:
    """Return L⁻¹A, and whether it failed; `furthest` is how much products of rows may differ from those of orthonormal ones.

    After a first step they hardly do (0.04 at a condition number of 1,000), unless rounding alone told two rows apart.
    """
    products = rows @ rows.mT
    factor, failed = torch.linalg.cholesky_ex(products)
    eye = torch.eye(rows.shape[-2], dtype=rows.dtype, device=rows.device)
    near = (products.detach() - eye).abs() <= furthest  # which NaN is not
    return torch.linalg.solve_triangular(factor, rows, upper=False), failed.any() | ~near.all()
