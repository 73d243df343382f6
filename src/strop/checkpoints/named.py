"""Where a function takes a model and its tokenizer, it takes a model's name or folder too."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Protocol, TypeVar, overload

from strop.checkpoints.classifier import load_classifier, load_image_classifier
from strop.checkpoints.load import load, saved_classifier
from strop.tasks import Task, load_task

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Given = ParamSpec("Given")
Found = TypeVar("Found", covariant=True)


class TakesNames(Protocol[Given, Found]):
    """A function of a model, its tokenizer or image processor and more; a name or a folder stands for the first two."""

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
    function: "Callable[Concatenate[PreTrainedModel, PreTrainedTokenizerBase, Given], Found]", *, new_head: bool = True
) -> TakesNames[Given, Found]:
    """Return a function that takes a model's name or folder in the place of the model and its tokenizer.

    A name is loaded as `strop.load` does, onto a GPU if there is one; as a classifier where the task has labels, and as one of
    images where it shows these.

    Args:
        function: of a model, its tokenizer, a task and more.
        new_head: let a classifier's head be drawn where the checkpoint has none.
    """

    @functools.wraps(function)
    def open_first(model: Any, *more: Any, **settings: Any) -> Found:
        if not isinstance(model, (str, Path)):
            return function(model, *more, **settings)
        if more and (more[0] is None or hasattr(more[0], "convert_tokens_to_ids") or hasattr(more[0], "preprocess")):
            settings["tokenizer"], more = more[0], more[1:]
        own = settings.pop("tokenizer", None)
        task = more[0] if more else settings.get("task")
        if task is not None and not isinstance(task, Task):
            task = load_task(task)
            more, settings = ((task, *more[1:]), settings) if more else (more, {**settings, "task": task})
        plan = more[1] if len(more) > 1 else settings.get("plan")
        known = task.labels if isinstance(task, Task) else None
        labels = (known.names or 1) if known is not None else None
        images = isinstance(task, Task) and task.shows_images
        begun = getattr(more[2] if len(more) > 2 else settings.get("options"), "after", None)
        drawn = (
            new_head or getattr(begun, "head", None) is not None
        )  # what a run begins with puts a head of its own there
        opened, tokenizer = open_model(
            model, labels=labels, images=images, seed=getattr(plan, "seed", 0), new_head=drawn
        )
        return function(opened, own if own is not None else tokenizer, *more, **settings)

    return open_first


takes_names_of_classifiers = functools.partial(takes_names, new_head=False)
"""The same of a function that edits classifiers as they decide already, and no head that was drawn at random."""


def open_model(
    name: str | Path,
    *,
    labels: int | Sequence[str] | None = None,
    images: bool = False,
    seed: int = 0,
    new_head: bool = True,
) -> "tuple[PreTrainedModel, PreTrainedTokenizerBase]":
    """Load a model by name or folder, and its tokenizer or image processor, onto a GPU if there is one.

    Args:
        name: a name from the zoo, a folder, or a hub id.
        labels: of a classifier, or how many; None for a language model.
        images: a classifier of images.
        seed: of a classifier's new head.
        new_head: draw one where the checkpoint has none.

    Raises:
        CheckpointError: there is no such model, or it cannot be read.
    """
    if labels is None:
        return load(name, device=best_device())
    load_labelled: Any = load_image_classifier if images else load_classifier
    model, reader = load_labelled(name, labels=labels, seed=seed, device=best_device(), new_head=new_head)
    return model, reader


def open_as_saved(name: str | Path, **settings: Any) -> Any:
    """Load a model as what its checkpoint says it is: a classifier with the labels it has, or a language model.

    Args:
        name: a name from the zoo, a folder, or a hub id.
        settings: what `strop.load` takes besides; `headless` goes with language models.

    Raises:
        CheckpointError: there is no such model, or it cannot be read.
    """
    kind = saved_classifier(name, revision=settings.get("revision"))
    if kind is None:
        return load(name, **settings)
    settings.pop("headless", None)
    if kind == "images":
        return load_image_classifier(name, **settings)
    return load_classifier(name, labels=None, **settings)


def best_device() -> "torch.device":
    """Return CUDA, else MPS, where there is one, else the CPU."""
    import torch

    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
