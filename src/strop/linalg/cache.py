"""One decomposition per matrix, ever: kept on disk under the matrix's fingerprint."""

import contextlib
import os
from pathlib import Path

from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from strop.errors import UsageError
from strop.files import cache_folder, replacing_file
from strop.linalg.fingerprint import fingerprint
from strop.linalg.svd import SingularValueDecomposition, decompose

DEFAULT_BUDGET_BYTES = 16 * 2**30
_HEADER_BYTES = 512
"""More than a file holds beside its three tensors."""


class DecompositionCache:
    """Decompositions on disk, found by their matrix's fingerprint; the least recently used go when the budget is full.

    A file that is damaged is made anew. A disk that refuses the write costs the reuse and nothing else: the
    decomposition is still returned.

    Args:
        folder: where to keep them; `svd/` in Strop's cache folder by default.
        budget_bytes: most the folder may hold; `$STROP_SVD_BUDGET_BYTES`, else 16 GiB.

    Raises:
        UsageError: `$STROP_SVD_BUDGET_BYTES` is not a number.

    >>> import tempfile, torch
    >>> cache = DecompositionCache(Path(tempfile.mkdtemp()))
    >>> cache.decompose(torch.eye(2)).singular_values
    tensor([1., 1.])
    """

    def __init__(self, folder: Path | None = None, *, budget_bytes: int | None = None) -> None:
        self.folder = folder if folder is not None else cache_folder() / "svd"
        self.budget_bytes = budget_bytes if budget_bytes is not None else _budget_named()
        self._held_bytes: int | None = None

    def decompose(self, matrix: Float[Tensor, "out in"]) -> SingularValueDecomposition:
        """Return the exact decomposition of `matrix`, from disk where it has been made before.

        Args:
            matrix: (out, in), any floating dtype and device.

        Returns:
            The same factors, to the last bit, on every call; on the matrix's device.

        Raises:
            DecompositionError: no solver could decompose the matrix.
        """
        path = self.folder / f"{fingerprint(matrix)}.safetensors"
        kept = _kept(path, matrix)
        if kept is not None:
            return kept
        decomposition = decompose(matrix)
        with contextlib.suppress(OSError, SafetensorError):
            self._keep(path, decomposition)
        return decomposition

    def _keep(self, path: Path, decomposition: SingularValueDecomposition) -> None:
        tensors = {"u": decomposition.u, "s": decomposition.singular_values, "vh": decomposition.vh}
        size = sum(tensor.nbytes for tensor in tensors.values()) + _HEADER_BYTES
        if size > self.budget_bytes:
            return
        self._make_room(size)
        with replacing_file(path) as temporary:
            save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, temporary)
        self._held_bytes = (self._held_bytes or 0) + path.stat().st_size

    def _make_room(self, size: int) -> None:
        if self._held_bytes is None:
            self._held_bytes = sum(file.stat().st_size for file in self.folder.glob("*.safetensors"))
        if self._held_bytes + size <= self.budget_bytes:
            return
        oldest_first = sorted(self.folder.glob("*.safetensors"), key=lambda file: file.stat().st_mtime)
        for file in oldest_first:
            if self._held_bytes + size <= self.budget_bytes:
                break
            self._held_bytes -= file.stat().st_size
            file.unlink(missing_ok=True)


def _kept(path: Path, matrix: Tensor) -> SingularValueDecomposition | None:
    try:
        tensors = load_file(path, device=str(matrix.device))
        u, s, vh = tensors["u"], tensors["s"], tensors["vh"]
    except (SafetensorError, KeyError, OSError):
        return None
    rank = min(matrix.shape)
    if (u.shape, s.shape, vh.shape) != ((matrix.shape[0], rank), (rank,), (rank, matrix.shape[1])):
        return None
    with contextlib.suppress(OSError):  # a folder that may only be read is as good
        os.utime(path)
    return SingularValueDecomposition(u, s, vh)


def _budget_named() -> int:
    named = os.environ.get("STROP_SVD_BUDGET_BYTES")
    if not named:
        return DEFAULT_BUDGET_BYTES
    if not named.isdecimal():
        raise UsageError(f"$STROP_SVD_BUDGET_BYTES is a number of bytes, not '{named}'.")
    return int(named)
