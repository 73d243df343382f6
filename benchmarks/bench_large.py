"""What a large model pays beside its forward passes: its identity, decompositions, and the frames of all layers."""

import functools
import hashlib
import statistics
import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from common import medians_in_turn, seconds_of, write_result
from strop.linalg import DecompositionCache, checksum, decompose, fingerprint, orthonormal_rows

RUNS = 3
BYTES = 2**26
"""Of the tensor that is hashed."""
SHAPES = ((576, 576), (576, 1536), (768, 768))
LAYERS, RANK, HIDDEN = 30, 8, 576


def identity() -> dict[str, float]:
    """Time SHA-256 of a tensor beside what is paid when it was hashed before."""
    tensor = torch.randn(BYTES // 4 // 1024, 1024, generator=torch.Generator().manual_seed(0))
    known = checksum(tensor)
    fingerprint(tensor, checksum=known)
    found = medians_in_turn(
        {
            "SHA-256": lambda: hashlib.sha256(tensor.view(torch.uint8).numpy().data).hexdigest(),
            "checksum": lambda: checksum(tensor),
            "fingerprint, known": lambda: fingerprint(tensor, checksum=known),
        },
        runs=RUNS,
    )
    return {name: round(taken, 5) for name, taken in found.items()}


def noise(rows: int, columns: int) -> Tensor:
    """Return a matrix as layers begin."""
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(0))


def noise_with_lost_values(rows: int, columns: int) -> Tensor:
    """Return a matrix as layers begin, with three values more than 10,000 times smaller than the largest."""
    matrix = noise(rows, columns)
    for row in range(3):
        matrix[row] = matrix[3:].mean(0) * (row + 1) + 1e-4 * matrix[row]
    return matrix


def decompositions(shape: tuple[int, int]) -> dict[str, object]:
    """Time a decomposition whose smallest values are lost in the square: by LAPACK, and by Gram with these made good.

    What earlier versions did is what Gram takes where nothing is lost, for nothing, and LAPACK after it.
    """
    matrix, plain = noise_with_lost_values(*shape), noise(*shape)
    truth = torch.linalg.svdvals(matrix.double())
    found = medians_in_turn(
        {
            "exact": lambda: decompose(matrix, method="exact"),
            "Gram, completed": lambda: decompose(matrix, method="gram"),
            "Gram, nothing lost": lambda: decompose(plain, method="gram"),
        },
        runs=RUNS,
    )
    made = decompose(matrix, method="gram")
    eye = torch.eye(min(shape))
    return {
        "shape": list(shape),
        "lost": int((truth * 1e4 <= truth[0]).sum()),
        "seconds": {name: round(taken, 4) for name, taken in found.items()},
        "completed_over_exact": round(found["Gram, completed"] / found["exact"], 3),
        "completed_over_gram_then_exact": round(
            found["Gram, completed"] / (found["Gram, nothing lost"] + found["exact"]), 3
        ),
        "largest_error": {
            "singular values, share of the largest": float((made.singular_values - truth).abs().max() / truth[0]),
            "u orthonormal": float((made.u.T @ made.u - eye).abs().max()),
            "vh orthonormal": float((made.vh @ made.vh.T - eye).abs().max()),
            "recomposed, share of the largest": float((made.recompose() - matrix).abs().max() / truth[0]),
        },
    }


def writing() -> dict[str, float]:
    """Time what whoever asks for a decomposition waits for, beside what writing it takes."""
    matrix = noise(768, 768)
    made = decompose(matrix)
    room: Any = import_module("strop.linalg.cache")
    plain, room.decompose = room.decompose, lambda _matrix: made
    asked, written = [], []
    try:
        for run in range(RUNS):
            with tempfile.TemporaryDirectory() as folder:
                cache, own = DecompositionCache(Path(folder)), matrix + run
                fingerprint(own)
                asked.append(seconds_of(functools.partial(cache.decompose, own)))
                written.append(seconds_of(cache.flush))
    finally:
        room.decompose = plain
    return {"asked for": round(statistics.median(asked), 4), "then written": round(statistics.median(written), 4)}


def frames() -> dict[str, float]:
    """Time the frames of all layers, forward and backward: one by one and together."""
    raw = torch.randn(LAYERS, RANK, HIDDEN, generator=torch.Generator().manual_seed(0)).requires_grad_(True)
    weights = torch.randn(LAYERS, RANK, HIDDEN)
    found = medians_in_turn(
        {
            "one by one": lambda: torch.autograd.backward(
                torch.stack(
                    [(orthonormal_rows(own) * weight).sum() for own, weight in zip(raw, weights, strict=True)]
                ).sum()
            ),
            "together": lambda: torch.autograd.backward((orthonormal_rows(raw) * weights).sum()),
        },
        runs=RUNS,
    )
    return {name: round(1000 * taken, 3) for name, taken in found.items()}


def main() -> None:
    write_result(
        "large",
        {
            "threads": torch.get_num_threads(),
            "identity_seconds_of_64_mebibytes": identity(),
            "decompositions": [decompositions(shape) for shape in SHAPES],
            "decomposition_of_768_x_768_seconds": writing(),
            f"frames_of_{LAYERS}_layers_milliseconds": frames(),
        },
    )


if __name__ == "__main__":
    main()
