"""Several processes that work on one run, as torchrun starts them: the first writes, the others help and stay silent."""

import datetime
import os
from typing import TypeVar

import torch
from torch import distributed

T = TypeVar("T")

PATIENCE = datetime.timedelta(days=1)
"""How long processes wait for each other: the first scores alone, and where one dies torchrun ends the others."""


def join_processes(device: torch.device) -> bool:
    """Join the processes that torchrun started beside this one; return whether there are several.

    Args:
        device: where the model is; decides how they talk to each other.
    """
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_world_size() > 1
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return False
    from accelerate import PartialState

    PartialState(cpu=device.type == "cpu", timeout=PATIENCE)
    return True


def process_index() -> int:
    """Return which process this is, counted from 0."""
    return distributed.get_rank() if distributed.is_available() and distributed.is_initialized() else 0


def of_all_processes(value: T) -> list[T]:
    """Return what every process has, in their order; all of them must ask."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return [value]
    gathered = [value] * distributed.get_world_size()
    distributed.all_gather_object(gathered, value)
    return gathered
