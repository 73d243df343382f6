"""Which decomposition is fastest at which shape, and how accurate: the exact one, Gram's, and randomised ones."""

import torch

from common import median_seconds, write_result
from strop.linalg import SingularValueDecomposition, decompose

SHAPES = ((192, 576), (576, 576), (1536, 576), (3072, 768), (2048, 2048), (8192, 2048))
RUNS = 5


def spectrum_like_a_weight(rows: int, columns: int) -> torch.Tensor:
    """Return a random matrix with the slowly falling spectrum trained weights have: σ_i from 10 down to 0.5."""
    rank = min(rows, columns)
    generator = torch.Generator().manual_seed(0)
    left = torch.linalg.qr(torch.randn(rows, rank, generator=generator)).Q
    right = torch.linalg.qr(torch.randn(columns, rank, generator=generator)).Q
    matrix: torch.Tensor = (left * torch.logspace(1, -0.3, rank)) @ right.T
    return matrix


def error_of(found: SingularValueDecomposition, truth: torch.Tensor) -> float:
    """Return the largest error of a singular value, relative to the largest value."""
    rank = found.singular_values.shape[0]
    return float((found.singular_values.double() - truth[:rank]).abs().max() / truth[0])


def measure(shape: tuple[int, int]) -> dict[str, object]:
    """Time and check all methods at one shape."""
    matrix = spectrum_like_a_weight(*shape)
    truth = torch.linalg.svdvals(matrix.double())
    rank = max(1, min(shape) // 20)
    runs = 3 if min(shape) >= 2048 else RUNS
    exact = median_seconds(lambda: decompose(matrix, method="exact"), runs=runs)
    gram = median_seconds(lambda: decompose(matrix, method="gram"), runs=runs)
    ours = median_seconds(lambda: decompose(matrix, method="randomized", rank=rank), runs=runs)
    laser = median_seconds(lambda: torch.svd_lowrank(matrix, q=rank, niter=2), runs=runs)
    u, s, v = torch.svd_lowrank(matrix, q=rank, niter=2)
    return {
        "shape": list(shape),
        "rank_of_randomized": rank,
        "exact_seconds": round(exact, 5),
        "gram_over_exact": round(gram / exact, 3),
        "randomized_over_exact": round(ours / exact, 3),
        "svd_lowrank_over_exact": round(laser / exact, 3),
        "relative_error": {
            "exact": error_of(decompose(matrix, method="exact"), truth),
            "gram": error_of(decompose(matrix, method="gram"), truth),
            "randomized": error_of(decompose(matrix, method="randomized", rank=rank), truth),
            "svd_lowrank": error_of(SingularValueDecomposition(u, s, v.T), truth),
        },
    }


def main() -> None:
    write_result("linalg", {"rows": [measure(shape) for shape in SHAPES]})


if __name__ == "__main__":
    main()
