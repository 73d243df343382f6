"""What a checkpoint keeps beside what was learned: optimiser, schedule, loss scale and randomness, as safetensors and JSON."""

import contextlib
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from strop.errors import TrainingError, reason_in, shortened
from strop.files import write_json
from strop.recipe.files import on_its_own

OPTIMISER, RANDOMNESS, BESIDE = "optimizer", "randomness", "learned_beside.safetensors"


def write_optimiser(
    folder: Path, state: Mapping[str, Any], schedule: Mapping[str, Any], scale: Mapping[str, Any]
) -> None:
    """Write an optimiser's state: its tensors as safetensors, its numbers as JSON.

    Args:
        folder: of the checkpoint.
        state: the optimiser's `state_dict()`.
        schedule: the scheduler's.
        scale: the gradient scaler's; empty without one.
    """
    tensors: dict[str, Tensor] = {}
    numbers: dict[str, dict[str, Any]] = {}
    for index, entry in state["state"].items():
        numbers[str(index)] = {}
        for name, value in entry.items():
            if isinstance(value, Tensor):
                tensors[f"{index}.{name}"] = on_its_own(value)
            else:
                numbers[str(index)][name] = value
    save_file(tensors or {"none": torch.zeros(0)}, folder / f"{OPTIMISER}.safetensors", metadata={"format": "pt"})
    write_json(
        folder / f"{OPTIMISER}.json",
        {"state": numbers, "groups": state["param_groups"], "schedule": dict(schedule), "scale": dict(scale)},
    )


def read_optimiser(folder: Path) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Return what `write_optimiser` was given: the states of optimiser, schedule and scaler.

    Raises:
        TrainingError: they are damaged.
    """
    with refusing_damage(folder):
        kept = json.loads((folder / f"{OPTIMISER}.json").read_text(encoding="utf-8"))
        state: dict[int, dict[str, Any]] = {int(index): dict(entry) for index, entry in kept["state"].items()}
        for name, tensor in load_file(folder / f"{OPTIMISER}.safetensors").items():
            if not bool(torch.isfinite(tensor).all()):
                raise ValueError(f"its {name} holds NaN or infinity")
            index, dot, short = name.partition(".")
            if dot:
                state[int(index)][short] = tensor
        return {"state": state, "param_groups": kept["groups"]}, kept["schedule"], kept["scale"]


@contextlib.contextmanager
def refusing_damage(folder: Path) -> Iterator[None]:
    """Say in a sentence what is wrong with a checkpoint that is read within the block.

    Args:
        folder: of the checkpoint.

    Raises:
        TrainingError: something is.
    """
    try:
        yield
    except (
        ArithmeticError,
        AttributeError,
        LookupError,
        OSError,
        RuntimeError,
        SafetensorError,
        TypeError,
        ValueError,
    ) as error:
        raise TrainingError(
            f"The checkpoint {folder} is damaged ({shortened(reason_in(error), most=120)}): delete that folder, and the "
            "training goes on from the one before it, or begins anew."
        ) from error


def refuse_damaged_state(path: Path) -> None:
    """Raise TrainingError if a trainer's state does not say how many steps were done.

    Args:
        path: of the trainer_state.json in a checkpoint.
    """
    with refusing_damage(path.parent):
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict) or type(content.get("global_step")) is not int:
            raise ValueError(f"{path.name} says no global_step")


def write_beside(folder: Path, parameters: Mapping[str, Tensor]) -> None:
    """Write what learns beside the edits, by its name in the model; no file where nothing does."""
    if parameters:
        own = {name: on_its_own(tensor) for name, tensor in parameters.items()}
        save_file(own, folder / BESIDE, metadata={"format": "pt"})


def read_beside(folder: Path, parameters: Mapping[str, Tensor]) -> None:
    """Give what learns beside the edits the numbers that `write_beside` wrote.

    Raises:
        TrainingError: the checkpoint holds other parameters than those that learn, or of other shapes.
    """
    path = folder / BESIDE
    kept = load_file(path) if path.is_file() else {}
    shapes = {name: tuple(tensor.shape) for name, tensor in parameters.items()}
    found = {name: tuple(tensor.shape) for name, tensor in kept.items()}
    if found != shapes:
        name = min({*shapes.items()} ^ {*found.items()})[0]
        raise TrainingError(
            f"{folder} was written while other parameters learned beside the edits ({name}); resume with the same model and "
            "adapters, or choose another folder."
        )
    with torch.no_grad():
        for name, tensor in kept.items():
            parameters[name].copy_(tensor)


def randomness() -> dict[str, Any]:
    """Return the state of every source of randomness: Python's, numpy's and torch's."""
    kind, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    return {
        "python": random.getstate(),
        "numpy": [str(kind), np.asarray(keys).tolist(), int(position), int(has_gauss), float(cached)],
        "torch": torch.get_rng_state().tolist(),
        "cuda": [state.tolist() for state in torch.cuda.get_rng_state_all()] if torch.cuda.is_available() else [],
    }


def restore_randomness(state: Mapping[str, Any]) -> None:
    """Set every source of randomness to a state that `randomness` returned, as it was or as JSON gives it back."""
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    kind, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), position, has_gauss, cached))
    torch.set_rng_state(torch.tensor(state["torch"], dtype=torch.uint8))
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all([torch.tensor(entry, dtype=torch.uint8) for entry in state["cuda"]])


def write_randomness(folder: Path, of_processes: Sequence[Mapping[str, Any]]) -> None:
    """Write what `randomness` returned on each process."""
    for process, state in enumerate(of_processes):
        write_json(folder / f"{RANDOMNESS}-{process}.json", state)


def read_randomness(folder: Path, process: int) -> None:
    """Restore the randomness of one process.

    Raises:
        TrainingError: the checkpoint has none for it, or it is damaged.
    """
    path = folder / f"{RANDOMNESS}-{process}.json"
    if not path.is_file():
        raise TrainingError(
            f"{folder} was not written by as many processes as there are now: resume with as many, or choose another --out."
        )
    with refusing_damage(folder):
        restore_randomness(json.loads(path.read_text(encoding="utf-8")))
