"""Hidden states that wait for the walk down a model: in memory as far as a budget goes, beyond it in a temporary file."""

import contextlib
import dataclasses
import tempfile
from collections.abc import Callable, Iterator
from typing import IO

import numpy
import torch
from torch import Tensor

from strop.errors import UsageError
from strop.files import cache_folder


class WaitingStates:
    """Keeps tensors until they are taken, each once; the file goes with the `with` block.

    Args:
        budget_bytes: most that is held in memory.

    >>> with WaitingStates(budget_bytes=0) as states:
    ...     take = states.keep(torch.ones(2))
    ...     take()
    tensor([1., 1.])
    """

    def __init__(self, *, budget_bytes: int) -> None:
        self._free_bytes = budget_bytes
        self._files = contextlib.ExitStack()
        self._file: IO[bytes] | None = None

    def __enter__(self) -> "WaitingStates":
        return self

    def __exit__(self, *_: object) -> None:
        self._files.close()

    def keep(self, state: Tensor) -> Callable[[], Tensor]:
        """Return what gives a state back, to the last bit and on its device.

        Raises:
            UsageError: it is beyond the budget, and there is no room on the disk.
        """
        if state.nbytes <= self._free_bytes:
            self._free_bytes -= state.nbytes
            return _Held(state, self._give_back)
        return self._written(state)

    def _give_back(self, size_bytes: int) -> None:
        self._free_bytes += size_bytes

    def _written(self, state: Tensor) -> Callable[[], Tensor]:
        raw = state.detach().cpu().contiguous().view(torch.uint8).numpy()
        try:
            if self._file is None:
                self._file = self._files.enter_context(_temporary_file())
            offset = self._file.seek(0, 2)
            self._file.write(raw.data)
            self._file.flush()
        except OSError as error:
            raise UsageError(
                f"Hidden states of the sample do not fit into memory, and cannot be written beside it "
                f"({error.strerror}): make room in {cache_folder()}, or take fewer examples."
            ) from None
        file, shape, dtype, device = self._file, state.shape, state.dtype, state.device

        def take() -> Tensor:
            file.seek(offset)
            read = numpy.frombuffer(bytearray(file.read(raw.nbytes)), dtype=numpy.uint8)
            return torch.from_numpy(read).view(dtype).reshape(shape).to(device)

        return take


@dataclasses.dataclass
class _Held:
    """A state in memory; taking it frees its place."""

    state: Tensor | None
    give_back: Callable[[int], None]

    def __call__(self) -> Tensor:
        found, self.state = self.state, None
        assert found is not None
        self.give_back(found.nbytes)
        return found


@contextlib.contextmanager
def _temporary_file() -> Iterator[IO[bytes]]:
    """Open a file without a name, which no kill leaves behind, where decompositions are kept too."""
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as file:
        yield file
