"""One decomposition per matrix, ever: kept on disk under the matrix's fingerprint."""

import contextlib
import errno
import hashlib
import os
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from strop.errors import StropWarning, UsageError
from strop.files import cache_folder, is_leftover, replacing_file, to_disk
from strop.linalg.behind import Behind
from strop.linalg.checksum import checksum as checksum_of
from strop.linalg.fingerprint import fingerprint
from strop.linalg.svd import SingularValueDecomposition, decompose, decompose_together

DEFAULT_BUDGET_BYTES = 16 * 2**30
NAMES = ("u", "s", "vh")
"""What the three factors are called in a file."""
CHECKSUM = "checksum"
"""Under what name the file's metadata has that of its factors."""
STALE_SECONDS = 3600
"""After how long a file that is still being written was left behind by a process that is dead."""
WAITING_BYTES = 2**30
"""Most that decompositions which are still to be written may take."""
_HEADER_BYTES = 512
"""More than a file holds beside its three tensors."""
_BEHIND = Behind(most_bytes=WAITING_BYTES)
_WAITING: dict[Path, SingularValueDecomposition] = {}
"""What this process has made and not written yet."""
os.register_at_fork(after_in_child=_WAITING.clear)


class DecompositionCache:
    """Decompositions on disk, found by their matrix's fingerprint; the least recently used go when the budget is full.

    What this object has kept or found stays, so that a sweep that is larger than the budget finds the same share of it every
    time. Every file holds a checksum of its numbers; one that is damaged is never used, and made anew. A disk that refuses
    the write costs the reuse and nothing else: the decomposition is still returned, and a full disk is told once. Any number
    of processes may share a folder. What was made is written behind the back of whoever goes on with it, at the latest before
    the process ends; `flush` waits for it.

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
        self._used: set[Path] = set()
        self._told = False

    def __call__(self, matrix: Float[Tensor, "out in"]) -> SingularValueDecomposition:
        """Return what `decompose` does: the cache itself is a way to come by decompositions."""
        return self.decompose(matrix)

    def decompose(self, matrix: Float[Tensor, "out in"]) -> SingularValueDecomposition:
        """Return the exact decomposition of `matrix`, from disk where it has been made before.

        Args:
            matrix: (out, in), any floating dtype and device.

        Returns:
            The same factors, to the last bit, on every call; on the matrix's device.

        Raises:
            DecompositionError: no solver could decompose the matrix.
        """
        path = self._path_of(matrix)
        kept = self._find(path, matrix)
        return kept if kept is not None else self._kept_from_now_on(path, decompose(matrix))

    def together(self, matrices: Sequence[Float[Tensor, "out in"]]) -> list[SingularValueDecomposition]:
        """Return the decompositions of matrices of one shape, dtype and device; those not made before are made together.

        Args:
            matrices: (out, in) each.

        Returns:
            For each the factors that `decompose` returns from then on.

        Raises:
            UsageError: they are of several shapes, dtypes or devices.
            DecompositionError: no solver could decompose one of them.
        """
        paths = [self._path_of(matrix) for matrix in matrices]
        found = [self._find(path, matrix) for path, matrix in zip(paths, matrices, strict=True)]
        missing = [matrix for matrix, kept in zip(matrices, found, strict=True) if kept is None]
        made = iter(decompose_together(missing))
        return [
            kept if kept is not None else self._kept_from_now_on(path, next(made))
            for path, kept in zip(paths, found, strict=True)
        ]

    def flush(self) -> None:
        """Return when all that was made in this process is on disk."""
        _BEHIND.wait()

    def _find(self, path: Path, matrix: Tensor) -> SingularValueDecomposition | None:
        waiting = _WAITING.get(path)
        if waiting is not None and waiting.u.device == matrix.device:
            return waiting
        kept = _kept(path, matrix)
        if kept is not None:
            self._used.add(path)
        return kept

    def _kept_from_now_on(self, path: Path, decomposition: SingularValueDecomposition) -> SingularValueDecomposition:
        _WAITING[path] = decomposition
        size = sum(tensor.nbytes for tensor in _named(decomposition).values())
        _BEHIND.do(lambda: self._write(path, decomposition), size=size)
        return decomposition

    def _write(self, path: Path, decomposition: SingularValueDecomposition) -> None:
        try:
            self._keep(path, decomposition)
        except (OSError, SafetensorError) as error:
            self._tell(error)
        finally:
            _WAITING.pop(path, None)

    def _path_of(self, matrix: Tensor) -> Path:
        return self.folder.absolute() / f"{fingerprint(matrix)}.safetensors"

    def _keep(self, path: Path, decomposition: SingularValueDecomposition) -> None:
        tensors = _named(decomposition)
        size = sum(tensor.nbytes for tensor in tensors.values()) + _HEADER_BYTES
        if size > self.budget_bytes:
            return
        if not self._make_room(size, but=path):
            return
        checksum = _checksum(tensors)
        own = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
        with replacing_file(path) as temporary:
            save_file(own, temporary, metadata={"format": "pt", CHECKSUM: checksum})
            to_disk(temporary)
        self._used.add(path)

    def _make_room(self, size: int, *, but: Path) -> bool:
        """Remove what has not been used for longest, and what killed processes left, until `size` fits; return whether it does."""
        held = {file: stat for file, stat in _files_in(self.folder) if file != but}
        for file, stat in list(held.items()):
            if is_leftover(file) and time.time() - stat.st_mtime > STALE_SECONDS:
                file.unlink(missing_ok=True)
                del held[file]
        free = self.budget_bytes - sum(stat.st_size for stat in held.values())
        for file, stat in sorted(held.items(), key=lambda entry: entry[1].st_mtime):
            if free >= size:
                break
            if file not in self._used and not is_leftover(file):
                file.unlink(missing_ok=True)
                free += stat.st_size
        return free >= size

    def _tell(self, error: OSError | SafetensorError) -> None:
        """Say once that nothing is kept, where it is for want of room; a folder that may only be read is as good."""
        short = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        if (short or "os error 28" in str(error) or "os error 122" in str(error)) and not self._told:
            self._told = True
            warnings.warn(
                f"{self.folder} is full, so decompositions are not kept and will be made again; free some space, or let "
                "$STROP_CACHE name another folder.",
                StropWarning,
                stacklevel=3,
            )


def _files_in(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Yield the files of a folder that others may be changing."""
    for file in folder.glob("*") if folder.is_dir() else ():
        with contextlib.suppress(FileNotFoundError):
            if file.is_file():
                yield file, file.stat()


def _kept(path: Path, matrix: Tensor) -> SingularValueDecomposition | None:
    """Return what a file holds; None where there is none, or it is not the whole decomposition of such a matrix."""
    try:
        with safe_open(path, framework="pt") as file:
            wanted = (file.metadata() or {})[CHECKSUM]
            tensors = {name: file.get_tensor(name) for name in NAMES}
    except (SafetensorError, KeyError, OSError):
        return None
    tensors = {name: tensor.to(matrix.device) for name, tensor in tensors.items()}
    if _checksum(tensors) != wanted:
        return None
    u, s, vh = (tensors[name] for name in NAMES)
    rank = min(matrix.shape)
    if (u.shape, s.shape, vh.shape) != ((matrix.shape[0], rank), (rank,), (rank, matrix.shape[1])):
        return None
    with contextlib.suppress(OSError):  # a folder that may only be read is as good
        os.utime(path)
    return SingularValueDecomposition(u, s, vh)


def _named(decomposition: SingularValueDecomposition) -> dict[str, Tensor]:
    return dict(zip(NAMES, (decomposition.u, decomposition.singular_values, decomposition.vh), strict=True))


def _checksum(tensors: Mapping[str, Tensor]) -> str:
    return hashlib.sha256("".join(checksum_of(tensors[name]) for name in NAMES).encode()).hexdigest()[:32]


def _budget_named() -> int:
    named = os.environ.get("STROP_SVD_BUDGET_BYTES")
    if not named:
        return DEFAULT_BUDGET_BYTES
    if not named.isdecimal():
        raise UsageError(f"$STROP_SVD_BUDGET_BYTES is a number of bytes, not '{named}'.")
    return int(named)
