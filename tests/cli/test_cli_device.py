"""Where a command runs: as --device says, else on a GPU where there is one; and it says so first."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import strop
from strop.cli.console import device_for_command


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let torch say that there is CUDA or MPS, or neither."""

    def pretend(*there: str) -> None:
        monkeypatch.setattr("torch.cuda.is_available", lambda: "cuda" in there)
        monkeypatch.setattr("torch.backends.mps.is_available", lambda: "mps" in there)

    return pretend


@pytest.mark.parametrize(
    ("there", "taken"), [(["cuda", "mps"], "cuda"), (["cuda"], "cuda"), (["mps"], "mps"), ([], "cpu")]
)
def test_a_gpu_is_taken_where_there_is_one(gpus: Callable[..., None], there: list[str], taken: str) -> None:
    gpus(*there)
    assert device_for_command(None) == torch.device(taken)
    assert device_for_command("cpu") == torch.device("cpu")


def test_the_first_line_says_where_it_runs(
    strop_command: Any, gpus: Callable[..., None], tiny_folder: Path, facts: Path
) -> None:
    gpus()
    for device in ([], ["--device", "cpu"]):
        outcome = strop_command("eval", tiny_folder, "--task", facts, "--limit", "2", *device)
        assert outcome.err.splitlines()[0] == "running on cpu (1 thread)"
        assert "running on" not in outcome.out
        assert strop_command("eval", tiny_folder, "--task", facts, "--limit", "2", *device, "--quiet").err == ""


def test_a_gpu_is_called_by_its_name(
    strop_command: Any,
    gpus: Callable[..., None],
    tiny_folder: Path,
    facts: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gpus("cuda")
    asked: list[object] = []
    load = strop.checkpoints.load
    monkeypatch.setattr("torch.cuda.get_device_name", lambda device: "NVIDIA Something")
    monkeypatch.setattr(
        "strop.checkpoints.load", lambda name, device, **_: asked.append(device) or load(name, device="cpu")
    )
    outcome = strop_command("eval", tiny_folder, "--task", facts, "--limit", "2")
    assert outcome.err.splitlines()[0] == "running on cuda: NVIDIA Something"
    assert asked == [torch.device("cuda")]


def test_a_device_there_is_not_is_refused_with_the_one_there_is(
    refused: Callable[..., str], gpus: Callable[..., None], tiny_folder: Path
) -> None:
    gpus()
    message = refused("inspect", tiny_folder, "--device", "nonsense", code=2)
    assert message == (
        "--device nonsense cannot be used here: there is no such device; it is cpu, cuda, cuda:1 or mps; leave it out to run "
        "on cpu."
    )


def test_in_python_a_model_is_loaded_to_the_cpu(gpus: Callable[..., None], tiny_folder: Path) -> None:
    gpus("cuda", "mps")
    model, _ = strop.load(str(tiny_folder))
    assert model.device == torch.device("cpu")
