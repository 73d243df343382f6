"""Resources: one value, chosen by the device, settable in one place, that changes speed and no figure."""

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from strop.errors import UsageError
from strop.scoring import Resources, Scorer, using
from strop.scoring.resources import CPU, on_device
from strop.tasks import Example


def test_a_cpu_gets_what_two_cores_do_best_with(tiny: Callable[..., Any]) -> None:
    assert Resources.of(tiny("llama")) == CPU == Resources()


@pytest.mark.parametrize(("free_gib", "batch_tokens"), [(0, 1024), (8, 8 * 1024), (80, 64 * 1024)])
def test_an_accelerators_batches_grow_with_its_free_memory(
    monkeypatch: pytest.MonkeyPatch, free_gib: int, batch_tokens: int
) -> None:
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda device: (free_gib * 2**30, 80 * 2**30))
    found = on_device(torch.device("cuda"), vocabulary=50_000)
    assert found.batch_tokens == batch_tokens
    assert found.scored_positions * 50_000 * 8 <= max(free_gib * 2**30 // 16, CPU.scored_positions * 50_000 * 8)
    assert found.state_bytes >= CPU.state_bytes


def test_what_is_set_holds_inside_its_block_and_in_its_thread_only(tiny: Callable[..., Any]) -> None:
    model, small, seen = tiny("llama"), Resources(batch_tokens=64), []
    with using(small):
        assert Resources.of(model) == small
        thread = threading.Thread(target=lambda: seen.append(Resources.of(model)))
        thread.start()
        thread.join()
    assert seen == [CPU]
    assert Resources.of(model) == CPU


def test_smaller_batches_change_no_figure(tiny: Callable[..., Any], small_tokenizer: Any) -> None:
    model = tiny("llama")
    examples = [Example(f"The city of Lyon{number} is in", " France") for number in range(12)]
    whole = Scorer(model, small_tokenizer, examples, "exact")
    with using(Resources(batch_tokens=16, scored_positions=3)):
        parted = Scorer(model, small_tokenizer, examples, "exact")
    assert len(parted.batches) > len(whole.batches)
    np.testing.assert_allclose(parted.evaluate().loss, whole.evaluate().loss, rtol=1e-5)


def test_a_size_that_is_not_positive_is_refused() -> None:
    with pytest.raises(UsageError, match="batch_tokens is 1 or more, not 0"):
        Resources(batch_tokens=0)
