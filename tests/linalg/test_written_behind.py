"""Decompositions are written behind the back of whoever goes on with them: nothing is lost, and nothing half-written."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import strop.linalg.cache as cache_room
from strop.errors import StropWarning
from strop.linalg import DecompositionCache, decompose
from strop.linalg.behind import Behind


def gaussian(seed: int = 0) -> Tensor:
    return torch.randn(12, 6, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Nothing is written before it is set."""
    opened = threading.Event()

    def waiting(*arguments: object, **settings: object) -> None:
        assert opened.wait(30)
        save_file(*arguments, **settings)  # type: ignore[arg-type]

    monkeypatch.setattr(cache_room, "save_file", waiting)
    yield opened
    opened.set()
    cache_room._BEHIND.wait()


def test_nobody_waits_for_the_disk_and_what_waits_is_found(tmp_path: Path, gate, monkeypatch) -> None:
    cache, made = DecompositionCache(tmp_path), []
    monkeypatch.setattr(cache_room, "decompose", lambda matrix: made.append(matrix) or decompose(matrix))
    first = cache.decompose(gaussian())
    assert not [file for file in tmp_path.iterdir() if not file.name.endswith(".partial")]
    assert cache.decompose(gaussian()) is first
    assert DecompositionCache(tmp_path).decompose(gaussian()) is first
    assert len(made) == 1
    gate.set()
    cache.flush()
    (file,) = tmp_path.iterdir()
    assert file.suffix == ".safetensors"
    assert not cache_room._WAITING
    again = DecompositionCache(tmp_path).decompose(gaussian())
    assert torch.equal(again.u, first.u)
    assert len(made) == 1


def test_a_folder_named_from_here_is_meant_from_there_too(tmp_path: Path, gate, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    cache = DecompositionCache(Path("svd"))
    cache.decompose(gaussian())
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    gate.set()
    cache.flush()
    assert len(list((tmp_path / "svd").iterdir())) == 1
    assert not list((tmp_path / "elsewhere").iterdir())


def test_a_full_disk_is_told_although_nobody_waits_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = threading.Event()

    def full(*arguments: object, **settings: object) -> None:
        assert opened.wait(30)
        raise OSError(28, "No space left on device")

    def let_it_fail() -> None:
        opened.set()
        cache.flush()

    monkeypatch.setattr(cache_room, "save_file", full)
    cache = DecompositionCache(tmp_path)
    cache.decompose(gaussian())
    with pytest.warns(StropWarning, match="is full, so decompositions are not kept"):
        let_it_fail()
    assert not list(tmp_path.iterdir())
    assert not cache_room._WAITING


SCRIPT = """
import sys, torch
from pathlib import Path
from strop.linalg import DecompositionCache
cache = DecompositionCache(Path(sys.argv[1]))
for seed in range(4):
    cache.decompose(torch.randn(30, 20, generator=torch.Generator().manual_seed(seed)))
raise SystemExit(3)
"""


def test_all_is_written_before_a_process_ends(tmp_path: Path) -> None:
    assert subprocess.run([sys.executable, "-c", SCRIPT, str(tmp_path)], check=False).returncode == 3
    assert sorted(file.suffix for file in tmp_path.iterdir()) == [".safetensors"] * 4


def test_no_more_waits_than_memory_allows() -> None:
    behind, opened, done = Behind(most_bytes=100), threading.Event(), []

    def work(name: str) -> None:
        opened.wait(30)
        done.append(name)

    behind.do(lambda: work("large"), size=1000)  # more than may wait, and nothing does
    giving = threading.Thread(target=lambda: behind.do(lambda: work("small"), size=1))
    giving.start()
    giving.join(0.05)
    assert giving.is_alive()
    opened.set()
    giving.join(30)
    behind.wait()
    assert done == ["large", "small"]


def test_work_that_fails_keeps_nobody_waiting() -> None:
    behind, done = Behind(most_bytes=10), []
    behind.do(lambda: 1 // 0, size=10)  # type: ignore[arg-type, return-value]
    behind.do(lambda: done.append(1), size=10)
    behind.wait()
    assert done == [1]


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_process_has_a_thread_of_its_own() -> None:
    behind, opened = Behind(most_bytes=10), threading.Event()
    behind.do(lambda: opened.wait(30), size=10)  # type: ignore[arg-type, return-value]
    child = os.fork()
    if child == 0:
        done: list[int] = []
        behind.do(lambda: done.append(1), size=10)
        behind.wait()
        os._exit(0 if done == [1] else 1)
    opened.set()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    behind.wait()
