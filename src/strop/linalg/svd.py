"""The singular value decomposition: exact, through the Gram matrix, or randomised, with a ladder of fallbacks."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from strop.errors import DecompositionError, UsageError
from strop.linalg.gram import decompose_by_gram
from strop.linalg.precision import full_precision

Method = Literal["auto", "exact", "gram", "randomized"]

GRAM_ASPECT = 1.5
"""From this ratio of the longer to the shorter side on, `auto` tries the Gram matrix first (benchmarks/bench_linalg.py)."""

TOGETHER_BYTES = 2**28
"""Most that matrices which are decomposed together take in float64."""


@dataclasses.dataclass(frozen=True, eq=False)
class SingularValueDecomposition:
    """W = U diag(σ) Vᴴ with the singular values in descending order; float32, or float64 where W is.

    Raises:
        DecompositionError: the factors' shapes do not belong together.
    """

    u: Float[Tensor, "out rank"]
    singular_values: Float[Tensor, " rank"]
    vh: Float[Tensor, "rank in"]

    def __post_init__(self) -> None:
        rank = self.singular_values.shape[0]
        if self.u.shape[1] != rank or self.vh.shape[0] != rank:
            raise DecompositionError(
                f"Factors of shapes {tuple(self.u.shape)}, ({rank},) and {tuple(self.vh.shape)} do not share a rank."
            )

    @property
    def shape(self) -> tuple[int, int]:
        """The decomposed matrix's (out, in)."""
        return self.u.shape[0], self.vh.shape[1]

    @full_precision()
    def recompose(self, rank: int | None = None) -> Float[Tensor, "out in"]:
        """Return the sum of the `rank` largest components (all of them by default).

        W_k = Σ_{i<k} σ_i u_i v_iᵀ, the best approximation of rank k in every unitarily invariant norm (Eckart–Young).

        >>> w = torch.diag(torch.tensor([3.0, 2.0, 1.0]))
        >>> decompose(w).recompose(rank=1)
        tensor([[3., 0., 0.],
                [0., 0., 0.],
                [0., 0., 0.]])
        """
        k = self.singular_values.shape[0] if rank is None else rank
        if not 0 <= k <= self.singular_values.shape[0]:
            raise UsageError(f"Only 0 to {self.singular_values.shape[0]} components can be kept, not {k}.")
        return (self.u[:, :k] * self.singular_values[:k]) @ self.vh[:k]

    def factors_of(self, indices: Sequence[int]) -> tuple[Float[Tensor, "out some"], Float[Tensor, "some in"]]:
        """Return chosen components as two factors: left = U_R diag(σ_R) and right = V_Rᵀ, whose product is their sum.

        Args:
            indices: R, counted from 0, the largest singular value.

        Raises:
            UsageError: there is no such component.
        """
        self.refuse_missing(indices)
        chosen = torch.tensor(indices, dtype=torch.long, device=self.u.device)
        return self.u[:, chosen] * self.singular_values[chosen], self.vh[chosen]

    def refuse_missing(self, indices: Sequence[int]) -> None:
        """Raise UsageError if an index is no component's."""
        rank = self.singular_values.shape[0]
        for index in indices:
            if not 0 <= index < rank:
                raise UsageError(f"A matrix of shape {self.shape} has components 0 to {rank - 1}, not {index}.")


@full_precision()
def without_components(
    matrix: Float[Tensor, "out in"], decomposition: SingularValueDecomposition, removed: Sequence[int]
) -> Float[Tensor, "out in"]:
    """Return a matrix without some of its components.

    W − Σ_{i∈R} σ_i u_i v_iᵀ = Σ_{i∉R} σ_i u_i v_iᵀ, computed by whichever sum is shorter. Where R is a suffix this is the
    truncation of LASER (arXiv 2312.13558); any R is eigenpruning's (arXiv 2404.03147).

    Args:
        matrix: W, (out, in).
        decomposition: of W.
        removed: R, counted from 0, the largest singular value; none twice.

    Returns:
        (out, in) in W's dtype; W itself, bit for bit, where nothing is removed.

    Raises:
        UsageError: there is no such component.

    >>> w = torch.diag(torch.tensor([3.0, 2.0, 1.0]))
    >>> without_components(w, decompose(w), [0]).diagonal()
    tensor([0., 2., 1.])
    """
    decomposition.refuse_missing(removed)
    rank = decomposition.singular_values.shape[0]
    if 2 * len(removed) <= rank:
        left, right = decomposition.factors_of(removed)
        return (matrix.to(left.dtype) - left @ right).to(matrix.dtype)
    gone = set(removed)
    left, right = decomposition.factors_of([index for index in range(rank) if index not in gone])
    return (left @ right).to(matrix.dtype)


@full_precision()
def decompose(
    matrix: Float[Tensor, "out in"],
    *,
    method: Method = "auto",
    rank: int | None = None,
    oversample: int = 10,
    power_iterations: int = 4,
    seed: int = 0,
) -> SingularValueDecomposition:
    """Decompose a matrix into its singular values and vectors.

    W = U diag(σ) Vᵀ. `exact` is LAPACK's (cuSOLVER's) divide-and-conquer; `gram` takes the eigenvectors of the smaller
    of WᵀW and WWᵀ in float64, and a thin decomposition for the vectors of values below σ₁/1e4, which the square loses: as
    good as a float32 decomposition; `auto` picks between the two by shape, and takes `exact` for float64; `randomized` is
    the range finder with power iterations of Halko, Martinsson and Tropp (arXiv 0909.4061, algorithms 4.4 and 5.1) for the
    `rank` largest values only. When a solver fails, the next one on the ladder is asked: divide-and-conquer, QR iteration
    in float64 on the CPU, the Gram matrix.

    Args:
        matrix: (out, in), any floating dtype; float16 and bfloat16 are decomposed in float32.
        method: which algorithm.
        rank: how many components to return; all by default; required for `randomized`.
        oversample: additional random directions, `randomized` only.
        power_iterations: passes that sharpen the range, `randomized` only.
        seed: of the random directions, `randomized` only.

    Returns:
        Factors on the matrix's device: u (out, k), singular values (k,), vh (k, in).

    Raises:
        UsageError: the matrix is empty, or `rank` is missing or too large.
        DecompositionError: the matrix holds NaN or infinity, or every solver failed.

    >>> decompose(torch.tensor([[2.0, 0.0], [0.0, 1.0]])).singular_values
    tensor([2., 1.])
    """
    if matrix.ndim != 2 or 0 in matrix.shape:
        raise UsageError(f"A matrix with at least one row and column is needed, not shape {tuple(matrix.shape)}.")
    largest = min(matrix.shape)
    if rank is not None and not 1 <= rank <= largest:
        raise UsageError(f"rank lies in 1 to {largest} for a {matrix.shape[0]} x {matrix.shape[1]} matrix, not {rank}.")
    work = matrix.detach()
    if work.dtype not in (torch.float32, torch.float64):
        work = work.float()
    if not torch.isfinite(work).all():
        bad = int((~torch.isfinite(work)).sum())
        raise DecompositionError(f"{bad} of the matrix's {work.numel()} entries are NaN or infinite.")
    if method == "randomized":
        if rank is None:
            raise UsageError("A randomized decomposition needs the rank to find.")
        return _randomized(work, rank, oversample=oversample, power_iterations=power_iterations, seed=seed)
    return _first_that_works(work, _ladder(work, method), rank=rank)


@full_precision()
def decompose_together(matrices: Sequence[Float[Tensor, "out in"]]) -> list[SingularValueDecomposition]:
    """Decompose matrices of one shape by as few calls as memory allows, as `decompose` does one by one.

    All are given to the solver that `decompose` would ask first; those it cannot do, and all where it fails, are left to
    `decompose`.

    Args:
        matrices: (out, in) each, of one dtype and device, such as those of a mixture's experts.

    Returns:
        For each what `decompose` returns, but for rounding and the signs of pairs of vectors.

    Raises:
        UsageError: they are of several shapes, dtypes or devices.
        DecompositionError: a matrix holds NaN or infinity, or every solver failed.

    >>> [found.singular_values for found in decompose_together([torch.eye(2), torch.diag(torch.tensor([1.0, 3.0]))])]
    [tensor([1., 1.]), tensor([3., 1.])]
    """
    if len({(matrix.shape, matrix.dtype, matrix.device) for matrix in matrices}) > 1:
        raise UsageError("Matrices of one shape, dtype and device are decomposed together; these are of several.")
    found: list[SingularValueDecomposition] = []
    size = max(1, TOGETHER_BYTES // (8 * matrices[0].numel())) if matrices else 1
    for start in range(0, len(matrices), size):
        part = matrices[start : start + size]
        by_one_call = _by_one_call(torch.stack([matrix.detach() for matrix in part])) if len(part) > 1 else [None]
        found += [own or decompose(matrix) for own, matrix in zip(by_one_call, part, strict=True)]
    return found


def _by_one_call(stacked: Tensor) -> list[SingularValueDecomposition | None]:
    work = stacked if stacked.dtype in (torch.float32, torch.float64) else stacked.float()
    first = _ladder(work[0], "auto")[0][1]
    if work.device.type == "mps" or 0 in work.shape:
        return [None] * len(work)
    try:
        u, s, vh = decompose_by_gram(work) if first is _gram else _exact(work)
    except (RuntimeError, np.linalg.LinAlgError, MemoryError):
        return [None] * len(work)
    good = u.isfinite().all((1, 2)) & s.isfinite().all(1) & vh.isfinite().all((1, 2))
    return [
        SingularValueDecomposition(u[index].contiguous(), s[index].contiguous(), vh[index].contiguous())
        if fits
        else None
        for index, fits in enumerate(good.tolist())
    ]


Factors = tuple[Tensor, Tensor, Tensor]
Ladder = list[tuple[str, Callable[[Tensor], Factors]]]


def _ladder(matrix: Tensor, method: Method) -> Ladder:
    gram: Ladder = [("Gram matrix", _gram)]
    exact: Ladder = [("divide and conquer", _exact), ("QR iteration in float64", _exact_on_cpu)]
    aspect = max(matrix.shape) / min(matrix.shape)
    suits_gram = matrix.dtype == torch.float32 and (
        matrix.is_cuda or aspect >= GRAM_ASPECT
    )  # it halves float64's digits
    gram_first = method == "gram" or (method == "auto" and suits_gram)
    return gram + exact if gram_first else exact + gram


def _first_that_works(
    matrix: Tensor,
    ladder: Ladder,
    *,
    rank: int | None,
) -> SingularValueDecomposition:
    failures = []
    for name, solver in ladder:
        try:
            u, s, vh = solver(matrix)
        except (RuntimeError, ArithmeticError, np.linalg.LinAlgError, MemoryError) as error:
            reason = str(error) or type(error).__name__
            failures.append(f"{name}: {reason.splitlines()[0]}")
            continue
        if all(torch.isfinite(factor).all() for factor in (u, s, vh)):
            k = s.shape[0] if rank is None else rank
            return SingularValueDecomposition(u[:, :k].contiguous(), s[:k].contiguous(), vh[:k].contiguous())
        failures.append(f"{name}: its factors are not finite")
    shape = f"{matrix.shape[0]} x {matrix.shape[1]}"
    raise DecompositionError(f"No solver could decompose a {shape} matrix ({'; '.join(failures)}).")


def _exact(matrix: Tensor) -> Factors:
    u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
    return u, s, vh


def _exact_on_cpu(matrix: Tensor) -> Factors:
    import scipy.linalg

    u, s, vh = scipy.linalg.svd(matrix.cpu().double().numpy(), full_matrices=False, lapack_driver="gesvd")
    u, s, vh = (torch.from_numpy(factor).to(matrix.device, matrix.dtype) for factor in (u, s, vh))
    return u, s, vh


def _gram(matrix: Tensor) -> Factors:
    if matrix.device.type == "mps":  # no float64 there
        u, s, vh = _gram(matrix.cpu())
        return u.to(matrix.device), s.to(matrix.device), vh.to(matrix.device)
    u, s, vh = decompose_by_gram(matrix[None])
    return u[0], s[0], vh[0]


def _randomized(
    matrix: Tensor, rank: int, *, oversample: int, power_iterations: int, seed: int
) -> SingularValueDecomposition:
    generator = torch.Generator().manual_seed(seed)
    directions = min(rank + oversample, min(matrix.shape))
    sketch = torch.randn(matrix.shape[1], directions, generator=generator, dtype=matrix.dtype).to(matrix.device)
    basis = torch.linalg.qr(matrix @ sketch).Q
    for _ in range(power_iterations):
        basis = torch.linalg.qr(matrix.T @ basis).Q
        basis = torch.linalg.qr(matrix @ basis).Q
    small = _first_that_works(basis.T @ matrix, _ladder(matrix, "exact"), rank=rank)
    return SingularValueDecomposition(basis @ small.u, small.singular_values, small.vh)
