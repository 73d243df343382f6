"""The benchmark of GPUs: its code runs where there is none, and says in a line that it measures nothing."""

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))
    described = importlib.util.spec_from_file_location("bench_gpu", FOLDER / "bench_gpu.py")
    assert described is not None
    assert described.loader is not None
    module = importlib.util.module_from_spec(described)
    described.loader.exec_module(module)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(module, "write_result", lambda *figures: pytest.fail("nothing was measured"))
    return module


def test_without_a_gpu_it_says_so_in_a_line(bench: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr("sys.argv", ["bench_gpu.py"])
    bench.main()
    said = capsys.readouterr().out.splitlines()
    assert said == ["There is no CUDA device, so nothing is measured; --rehearse runs the same code on the CPU."]


def test_rehearsed_it_does_all_it_would_do_and_finds_every_method_right(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "SELECT", 24)
    monkeypatch.setattr(bench, "TEST", 8)
    monkeypatch.setattr(bench, "NEW_TOKENS", 2)
    monkeypatch.setattr(bench, "LONG", (4, 24))
    monkeypatch.setattr(bench, "SHORT", (4, 13))
    limits = {
        name.replace("16 x 13", "4 x 13").replace("16 x 256", "4 x 24"): most for name, most in bench.LIMITS.items()
    }
    monkeypatch.setattr(bench, "LIMITS", limits)
    found = bench.measure(bench.Where(torch.device("cpu"), True), None)
    assert found["not_as_on_the_cpu"] == []
    assert set(found["agreement"]) == {"float32", "bfloat16", "float16"}
    for own in found["agreement"].values():
        assert set(own) == {"bare model", *bench.EDITS}
    assert found["agreement"]["float32"]["rank_reduction"]["difference"] == 0
    assert found["agreement"]["bfloat16"]["loreft"]["difference"] > 0
    assert set(limits) <= set(found["measured"])
    assert found["skipped_for_time"] == []
    assert found["counted"]["decompositions made, cold"] > 0
    assert found["counted"]["decompositions made, warm"] == 0
