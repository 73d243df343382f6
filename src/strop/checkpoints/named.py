"""Where a function takes a model and its tokenizer, it takes a model's name or folder too."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Protocol, TypeVar, overload

from strop.checkpoints.classifier import load_classifier
from strop.checkpoints.load import load
from strop.tasks import Task, load_task

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Given = ParamSpec("Given")
Found = TypeVar("Found", covariant=True)


class TakesNames(Protocol[Given, Found]):
    """A function of a model, its tokenizer and more; a name or a folder stands for the first two."""

    @overload
    def __call__(
        self,
        model: "PreTrainedModel",
        tokenizer: "PreTrainedTokenizerBase",
        *more: Given.args,
        **settings: Given.kwargs,
    ) -> Found: ...

    @overload
    def __call__(self, model: str | Path, *more: Given.args, **settings: Given.kwargs) -> Found: ...


def takes_names(
    function: "Callable[Concatenate[PreTrainedModel, PreTrainedTokenizerBase, Given], Found]",
) -> TakesNames[Given, Found]:
    """Return a function that takes a model's name or folder in the place of the model and its tokenizer.

    A name is loaded as `strop.load` does, onto a GPU if there is one; as a classifier where the task has labels.

    Args:
        function: of a model, its tokenizer, a task and more.
    """

    @functools.wraps(function)
    def open_first(model: Any, *more: Any, **settings: Any) -> Found:
        if not isinstance(model, (str, Path)):
            return function(model, *more, **settings)
        if more and (more[0] is None or hasattr(more[0], "convert_tokens_to_ids")):
            settings["tokenizer"], more = more[0], more[1:]
        own = settings.pop("tokenizer", None)
        task = more[0] if more else settings.get("task")
        if task is not None and not isinstance(task, Task):
            task = load_task(task)
            more, settings = ((task, *more[1:]), settings) if more else (more, {**settings, "task": task})
        plan = more[1] if len(more) > 1 else settings.get("plan")
        known = task.labels if isinstance(task, Task) else None
        labels = (known.names or 1) if known is not None else None
        opened, tokenizer = open_model(model, labels=labels, seed=getattr(plan, "seed", 0))
        return function(opened, own if own is not None else tokenizer, *more, **settings)

    return open_first


def open_model(
    name: str | Path, *, labels: int | Sequence[str] | None = None, seed: int = 0
) -> "tuple[PreTrainedModel, PreTrainedTokenizerBase]":
    """Load a model by name or folder, and its tokenizer, onto a GPU if there is one.

    Args:
        name: a name from the zoo, a folder, or a hub id.
        labels: of a classifier, or how many; None for a language model.
        seed: of a classifier's new head.

    Raises:
        CheckpointError: there is no such model, or it cannot be read.
    """
    if labels is None:
        return load(name, device=best_device())
    return load_classifier(name, labels=labels, seed=seed, device=best_device())


def best_device() -> "torch.device":
    """Return CUDA, else MPS, where there is one, else the CPU."""
    import torch

    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
