"""What a run took of GPUs."""

import pytest
import torch

from strop.proving.gpus import gpu_cost


def has(peaks: list[int], patch: pytest.MonkeyPatch) -> None:
    patch.setattr(torch.cuda, "is_available", lambda: bool(peaks))
    patch.setattr(torch.cuda, "device_count", lambda: len(peaks))
    patch.setattr(torch.cuda, "max_memory_allocated", lambda device: peaks[device])


def test_gpus_that_were_used_count_for_as_long_as_the_run_held_them(monkeypatch: pytest.MonkeyPatch) -> None:
    has([2_000, 0, 500], monkeypatch)
    assert gpu_cost(10.25) == {"gpu_seconds": 20.5, "peak_gpu_bytes": 2_500}


@pytest.mark.parametrize("peaks", [[], [0], [0, 0]])
def test_without_a_gpu_or_with_an_idle_one_nothing_is_said(peaks: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    has(peaks, monkeypatch)
    assert gpu_cost(10.0) == {}
