"""Workers that a run starts beside itself: processes of this machine, or actors of a Ray cluster; gone when the choice is made."""

import contextlib
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import IO, Protocol

import torch

from strop.progress import Progress
from strop.proving.options import Executor
from strop.proving.ray_actors import ray_actors

STUDY_VARIABLE, PARENT_VARIABLE = "STROP_STUDY", "STROP_PARENT"
"""What tells a process which study to help, so that no password stands among its arguments, and without whom it ends."""

LOOK_SECONDS = 0.5
"""How often it is seen to whether a process still runs."""


class Hired(Protocol):
    """A worker that was started."""

    def poll(self) -> int | None:
        """Return how it ended; None while it runs."""
        ...

    def terminate(self) -> None:
        """Ask it to end."""
        ...

    def kill(self) -> None:
        """End it."""
        ...

    def wait(self, timeout: float) -> int:
        """Wait until it has ended."""
        ...


@contextlib.contextmanager
def hired(study: str, *, count: int, executor: Executor, device: torch.device, progress: Progress) -> Iterator[None]:
    """Let others help with a study for the length of a block.

    Args:
        study: the address of its database, a # and its name.
        count: how many there are, this process among them.
        executor: who starts the others.
        device: where this process's model is; of several such devices each worker gets its own, in turn.
        progress: told of one that ends early.

    Raises:
        UsageError: Ray is asked for and not there, or its machines could not reach the database.
    """
    if count == 1:
        yield
        return
    if executor == "ray":
        with ray_actors(study, count=count - 1, on_gpu=device.type == "cuda", progress=progress):
            yield
        return
    threads = torch.get_num_threads()
    each = max(1, threads // count)
    with tempfile.TemporaryFile("a+b") as said:
        started = [start_process(study, device=_device_of(i, device), threads=each, said=said) for i in range(1, count)]
        torch.set_num_threads(each if device.type == "cpu" else threads)
        try:
            with _watched(started, lambda: progress.note(f"a worker has ended: {_last_line(said)}")):
                yield
        finally:
            torch.set_num_threads(threads)
            _end(started)


def start_process(study: str, *, device: str, threads: int, said: IO[bytes]) -> Hired:
    """Start `strop work` in a process of its own.

    Args:
        study: the address of its database, a # and its name.
        device: where it is to run.
        threads: on a CPU.
        said: where what it says goes.
    """
    own = {STUDY_VARIABLE: study, PARENT_VARIABLE: str(os.getpid()), "OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, "-m", "strop", "work", "--quiet", "--device", device]
    return subprocess.Popen(
        command, env={**os.environ, **own}, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=said
    )


def _device_of(number: int, first: torch.device) -> str:
    if first.type != "cuda":
        return str(first)
    return f"cuda:{((first.index or 0) + number) % torch.cuda.device_count()}"


@contextlib.contextmanager
def _watched(started: Sequence[Hired], tell: Callable[[], None]) -> Iterator[None]:
    """Notice it when a process ends, which also lets the system forget it, so that others see that it is gone."""
    over = threading.Event()

    def watch() -> None:
        running = list(started)
        while not over.wait(LOOK_SECONDS):
            for process in [process for process in running if process.poll() is not None]:
                running.remove(process)
                if process.poll() != 0:
                    tell()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


def _last_line(said: IO[bytes]) -> str:
    said.seek(0)
    lines = said.read().decode("utf-8", errors="replace").strip().splitlines()
    return lines[-1].removeprefix("Error: ") if lines else "it was killed"


def _end(started: Sequence[Hired]) -> None:
    for process in started:
        if process.poll() is None:
            process.terminate()
    for process in started:
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)
