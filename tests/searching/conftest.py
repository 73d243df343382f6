"""A tiny model that answers the small facts now right, now wrong, so that edits show in its accuracy."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from strop.tasks import Task, load_task


@pytest.fixture
def answering(tiny: Callable[..., Any], small_tokenizer: Any) -> Callable[..., Any]:
    """A maker of tiny models that always begin one of the small facts' answers."""

    def make(family: str = "llama", **changes: Any) -> Any:
        model = tiny(family, **changes)
        head = model.get_output_embeddings().weight
        with torch.no_grad():
            kept = [index for answer in (" France", " Brazil") for index in small_tokenizer(answer)["input_ids"]]
            silent = torch.ones(head.shape[0], dtype=torch.bool)
            silent[kept] = False
            head[silent] = 0.0
        return model

    return make


@pytest.fixture
def task(facts: Path) -> Task:
    return load_task(facts)


@pytest.fixture
def task_scored_by(facts: Path) -> Callable[[str], Task]:
    """The small facts under another score; `choice` is between the two countries."""

    def load(score: str) -> Task:
        lines = f"score: {score}\n" + ('choices: [" France", " Brazil"]\n' if score == "choice" else "")
        other = facts.with_name(f"{score}.yaml")
        other.write_text(facts.read_text() + lines)
        return load_task(other)

    return load


@pytest.fixture
def bits() -> Callable[[Any], dict[str, bytes]]:
    """Every parameter and buffer of a model, byte for byte."""
    return lambda model: {name: tensor.numpy().tobytes() for name, tensor in model.state_dict().items()}
