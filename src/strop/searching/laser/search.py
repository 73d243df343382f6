"""Search for rank reductions: propose, score on select, keep the best, measure once on test."""

import dataclasses
import time

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from strop.checkpoints import takes_names_of_classifiers
from strop.errors import UsageError
from strop.proving import Assignment, RunOptions, RunOutcome, RunSettings, conduct
from strop.proving.own_task import UNWRITTEN, own_text_task
from strop.searching.laser.chooser import ReductionChooser
from strop.searching.laser.plan import SearchPlan
from strop.tasks import Task, TaskSource, load_task, refuse_objective


@takes_names_of_classifiers
def search(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: TaskSource | None = None,
    plan: SearchPlan | None = None,
    options: RunOptions | None = None,
) -> RunOutcome:
    """Find which weight matrices to reduce to which rank, and prove the gain on held-out examples.

    The select split chooses, "no edit" is always a candidate, and the test split is scored once for the base and once
    for the chosen recipe, after the choice is made (rank reduction: LASER, arXiv 2312.13558; asking the gradient first:
    arXiv 2510.20800). The model is left as it was.

    Args:
        model: a causal language model, or a classifier where the task has labels, with nothing attached;
            its name or folder stands for it and its tokenizer.
        tokenizer: its fast tokenizer; of a classifier of images, its image processor.
        task: a task, or what `load_task` takes; strategy `data-free` goes without one by text the model itself writes.
        plan: the settings; one edit found by the gradient by default.
        options: where to begin, what to spend and where to write.

    Raises:
        RunError: the run folder is in use, is being worked on, or was begun with other settings.
        InterventionError: something is attached to the model.
        BaseMismatchError: the recipe to begin with was made for another model.
        TaskError: a row does not fit the model.
        SiteError: the model has no such layer or matrix type.
        UsageError: a race is to have several workers, the strategy needs a task and there is none, the model is not of the kind
            the task is for or has a matrix of fewer features than there are to be subspaces, or the task lacks the categories
            that `macro` averages over.
    """
    plan, options = plan or SearchPlan(), options or RunOptions()
    if task is None:
        refuse_objective(UNWRITTEN, plan.objective)
        task, options = _own_text(model, tokenizer, plan, options)
    task = load_task(task)
    refuse_objective(task, plan.objective)
    races = plan.strategy == "race"
    if races and options.workers > 1:
        raise UsageError(
            "A race goes on with what it rules out, and has no work for several workers: leave workers out (--workers), or search "
            "with strategy 'gradient' or 'exhaustive'."
        )
    with options.in_force():
        chooser = ReductionChooser(Assignment.of(model, tokenizer, task, options), plan)
        settings = RunSettings.of("search", plan, shared=not races)
        return conduct(chooser, settings, options)


def _own_text(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, plan: SearchPlan, options: RunOptions
) -> tuple[Task, RunOptions]:
    """Return a task of text the model writes itself, and the options, which say how long that took."""
    if plan.needs_task:
        raise UsageError(
            f"Strategy '{plan.strategy}' needs a task: give one, or a text (strop.text_task), or search with 'data-free'."
        )
    began = time.monotonic()
    task = own_text_task(model, tokenizer, family=options.family, progress=options.progress)
    return task, dataclasses.replace(options, spent_seconds=options.spent_seconds + time.monotonic() - began)
