"""Helping a search that is going on, from this process: load the model once, and score candidates until there are none."""

from pathlib import Path
from typing import Any

import torch

from strop.checkpoints import best_device, load, load_classifier, load_image_classifier
from strop.errors import RunError
from strop.progress import Progress, shown_here
from strop.proving import ASSIGNMENT, Assignment, Notice, Study, find_study, help_with, helper_name
from strop.runs import without_password
from strop.scoring import dated
from strop.searching.laser import Helper, SearchPlan
from strop.tasks import Task


def work(
    study: str | Path,
    model: str | Path | None = None,
    *,
    device: str | torch.device | None = None,
    progress: Progress | None = None,
) -> int:
    """Take part in a search that is going on, until its choice is made, and return how many candidates were scored.

    The model is loaded once; its weights must be those the search has. Candidates are claimed a layer at a time. Whoever began
    the search decides alone; this process never meets a test example. Interrupted or killed, it loses nothing: what it held is
    scored by others.

    Args:
        study: the address of the search's database, its run folder or its study.db; behind a # the name of one search of several.
        model: the name or folder of a copy of its model; what the search calls it by default.
        device: where to run; a GPU by default, if there is one.
        progress: told what is done.

    Raises:
        RunError: there is no such study, nobody asks for help there, another version of Strop does, or it has fallen silent.
        BaseMismatchError: the model is another than the search's.
        CheckpointError: there is no such model.
    """
    progress = progress if progress is not None else shown_here()
    address, name = find_study(study)
    where = without_password(address)
    queue = Study(address, name=name, worker=helper_name())
    try:
        notice = Notice.read(queue.recall(ASSIGNMENT, hidden=True), where=where)
        if notice.command != "search":
            raise RunError(f"The run in {where} is no search, and nobody can help it.")
        task, options = notice.read_task(), notice.options(progress=progress)
        loaded, tokenizer = _load(
            notice,
            model,
            task,
            new_head=options.after is not None and options.after.head is not None,
            device=device if device is not None else best_device(),
            announce=progress.note,
        )
        notice.check(loaded, tokenizer, task, where=where)
        with options.in_force(), dated(notice.moment):
            plan = SearchPlan.from_json(notice.plan)
            helper = Helper(Assignment.of(loaded, tokenizer, task, options), plan, queue, progress=progress)
            help_with(queue, helper.take_part, where=where)
        return helper.scored
    finally:
        queue.close()


def _load(notice: Notice, model: str | Path | None, task: Task, *, new_head: bool, **how: Any) -> Any:
    """Return the model and its tokenizer, or its image processor."""
    how["dtype"] = notice.torch_dtype()
    name = model if model is not None else notice.model
    if model is None:
        how["revision"] = notice.revision
    if task.labels is None:
        return load(name, **how)
    load_labelled: Any = load_image_classifier if task.shows_images else load_classifier
    return load_labelled(name, labels=task.labels.names or 1, seed=notice.plan["seed"], new_head=new_head, **how)
