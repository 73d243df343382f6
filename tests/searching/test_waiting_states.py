"""What waits in memory or on disk comes back as it was, and nothing is left behind."""

import errno
from pathlib import Path
from typing import Any

import pytest
import torch

from strop.errors import UsageError
from strop.searching.waiting_states import WaitingStates


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STROP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("budget", [0, 100, 2**20])
def test_each_comes_back_to_the_last_bit_in_any_order(dtype: torch.dtype, budget: int) -> None:
    states = [torch.randn(2, size, 3).to(dtype) for size in (1, 5, 2)]
    states.append(states[1][:, 1:4])  # not contiguous
    with WaitingStates(budget_bytes=budget) as waiting:
        taken = [waiting.keep(state) for state in states]
        for index in (2, 0, 3, 1):
            found = taken[index]()
            assert found.dtype == dtype
            assert torch.equal(found, states[index])
            found += 1  # it is the taker's own, and writable


def test_memory_is_used_again_once_a_state_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(WaitingStates, "_written", None)  # nothing goes to disk
    with WaitingStates(budget_bytes=40) as waiting:
        for _ in range(5):
            assert waiting.keep(torch.ones(10))().sum() == 10


def test_the_file_goes_with_the_block(cache: Path) -> None:
    with WaitingStates(budget_bytes=0) as waiting:
        waiting.keep(torch.ones(1000))
        assert list(cache.iterdir()) == []  # it has no name, so that no kill leaves it behind


def test_a_full_disk_is_said_in_a_sentence(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    def full(*_: Any, **__: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("strop.searching.waiting_states._temporary_file", full)
    with WaitingStates(budget_bytes=0) as waiting, pytest.raises(UsageError) as raised:
        waiting.keep(torch.ones(10))
    assert str(raised.value) == (
        "Hidden states of the sample do not fit into memory, and cannot be written beside it "
        f"(No space left on device): make room in {cache}, or take fewer examples."
    )
